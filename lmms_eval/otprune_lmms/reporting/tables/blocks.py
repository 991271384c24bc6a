"""From records to a table in blocks: the unpruned model, then one block for each budget."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from otprune_lmms.reporting.tables.by_layer import mean_over_layers, profiles
from otprune_lmms.reporting.tables.columns import columns_of, cost_columns, heads_of
from otprune_lmms.reporting.tables.cost import Convention, costs, tokens_of
from otprune_lmms.reporting.tables.gate import doubted, gate
from otprune_lmms.reporting.tables.intervals import Intervals
from otprune_lmms.reporting.tables.layout import Block, Column, Entry, Part, Row, Wide
from otprune_lmms.reporting.tables.marks import marked
from otprune_lmms.reporting.tables.notes import Told, notes
from otprune_lmms.reporting.tables.numbers import Numbers
from otprune_lmms.reporting.tables.printed import printed_blocks
from otprune_lmms.reporting.tables.references import Anchors, references
from otprune_lmms.reporting.tables.settings import Budget, Setting, settings_of, with_planned
from otprune_lmms.results.manifest import Manifest
from otprune_lmms.results.records import UNPRUNED


def wide(
    records: pd.DataFrame,
    manifest: Manifest,
    *,
    intervals: Intervals | None = None,
    folder: Path | None = None,
    convention: Convention = "2ndm",
    reference: Anchors | None = None,
) -> Wide:
    """Return the table of an experiment.

    Seeds of one setting are averaged. Rows of one budget share a block; ranks and marks are taken
    within it.

    Args:
        records: as `read_records` returns them.
        manifest: what was asked for, and what is known of the models.
        intervals: of the statistics; None for a table without.
        folder: of the results, for the visual tokens of a prompt of several images.
        convention: how multiply-adds are counted, see `otprune.cost`.
        reference: where the unpruned scores should be; None for `references`.

    Raises:
        ValueError: no records; a reference, a decoder or a convention that cannot be.
    """
    if records.empty:
        raise ValueError("a table needs records")
    settings = with_planned(settings_of(records), manifest.models, manifest.planned)
    heads = heads_of(records, manifest.tasks)
    verdicts = gate(records, references(manifest) if reference is None else reference)
    known = profiles(settings, records, manifest, folder)
    spent = costs(settings, tokens_of(records, folder), manifest, convention, known)
    columns, unit = cost_columns(spent, convention)
    layers = any(one.by_layer for one in settings)
    columns = columns_of(heads, columns, layers)
    means = {
        (one.model, one.label): mean_over_layers(one, known, manifest) for one in settings if layers
    }
    numbers = Numbers(records, intervals or Intervals(), spent, unit, doubted(verdicts), means)
    parts = tuple(
        Part(model, (*_blocks(own, columns, numbers), *printed_blocks(model, manifest, columns)))
        for model, own in _by_model(settings).items()
    )
    told = Told(records, manifest, settings, heads, columns, numbers, verdicts, convention)
    return Wide(_title(records, manifest.title), columns, parts, notes(told, parts))


def _by_model(settings: Sequence[Setting]) -> Mapping[str, list[Setting]]:
    found: dict[str, list[Setting]] = {}
    for setting in settings:
        found.setdefault(setting.model, []).append(setting)
    return found


def _blocks(
    settings: Sequence[Setting], columns: Sequence[Column], numbers: Numbers
) -> list[Block]:
    blocks = [
        Block("upper", _upper_title(one), (numbers.row(one, columns),))
        for one in settings
        if one.label == UNPRUNED
    ]
    budgets: dict[Budget, list[Setting]] = {}
    for one in settings:
        if one.label != UNPRUNED:
            budgets.setdefault(one.budget, []).append(one)
    visual = next((one.visual for one in settings if one.visual is not None), 1.0)
    # As the papers print them: the largest budget first.
    ordered = sorted(budgets, key=lambda budget: -_size(budget, visual))
    return blocks + [_retain(budget, budgets[budget], columns, numbers) for budget in ordered]


def _retain(
    budget: Budget, settings: Sequence[Setting], columns: Sequence[Column], numbers: Numbers
) -> Block:
    title = _retain_title(budget, settings, numbers)
    if budget[0] == "none":
        # Each at a cost of its own, so this is no contest.
        return Block("retain", title, tuple(numbers.row(one, columns) for one in settings))
    rows = [
        _with_rank(numbers.row(one, columns), rank, columns)
        for one, rank in zip(settings, numbers.ranks(settings), strict=True)
    ]
    # Averages over other tasks are no contest.
    alike = len({numbers.compared(one) for one in settings if one.cells}) < 2
    judged = [c if alike or c.kind != "relative" else replace(c, kind="tokens") for c in columns]
    return Block("retain", title, marked(rows, judged))


def _with_rank(row: Row, rank: float | None, columns: Sequence[Column]) -> Row:
    entries = [
        Entry(rank) if column.kind == "rank" and rank is not None else entry
        for column, entry in zip(columns, row.entries, strict=True)
    ]
    return replace(row, entries=tuple(entries))


def _size(budget: Budget, visual: float) -> float:
    """Return about how many tokens a budget keeps; schedules without one go last."""
    kind, number = budget
    return number * visual if kind.endswith("ratio") else number


def _upper_title(setting: Setting) -> str:
    if setting.visual is None:
        return "Upper bound"
    return f"Upper bound: {_count(setting.visual)} visual tokens (100 %)"


def _retain_title(budget: Budget, settings: Sequence[Setting], numbers: Numbers) -> str:
    head = _head(*budget)
    layers = any(one.by_layer for one in settings)
    amounts = [
        numbers.means.get((one.model, one.label)) if layers else one.kept for one in settings
    ]
    kept = sorted(amount for amount in amounts if amount is not None)
    visual = [one.visual for one in settings if one.visual is not None]
    if not kept or not visual or not visual[0]:
        return head
    least, most = _count(kept[0]), _count(kept[-1])
    tokens = least if least == most else f"{least} to {most}"
    found = f"{tokens} of {_count(visual[0])} tokens"
    found += " in a layer on average" if layers else ""
    if budget[0] == "none":
        return f"{head} ({found})"
    down = 100 * (1 - sum(kept) / len(kept) / visual[0])
    return f"{head} ({found}, down {down:.1f} %)"


def _head(kind: str, number: float) -> str:
    if kind == "none":
        return "Own schedules"
    about = "Retain multiply-adds of" if kind.startswith("flops") else "Retain"
    return f"{about} {number:g}" if kind.endswith("ratio") else f"{about} k = {number:g}"


def _count(number: float) -> str:
    return f"{number:.0f}" if abs(number - round(number)) < 0.05 else f"{number:.1f}"


def _title(records: pd.DataFrame, title: str) -> str:
    if set(records["suite"]) == {"mini"}:
        return f"{title} (mini suite: embedded data, not the paper's benchmarks)"
    return title
