"""From records to a table in blocks.

The unpruned model, then one block for each budget, then what papers print.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from otprune_lmms.reporting.tables.budgets import (
    BudgetFacts,
    Quartiles,
    budget_ledger,
    warnings_of,
)
from otprune_lmms.reporting.tables.columns import (
    AVERAGE,
    Numbers,
    columns_of,
    cost_columns,
    heads_of,
)
from otprune_lmms.reporting.tables.intervals import Intervals
from otprune_lmms.reporting.tables.layout import (
    Block,
    Column,
    Entry,
    Mark,
    ResultsTable,
    TablePart,
    TableRow,
)
from otprune_lmms.reporting.tables.notes import NoteContext, notes
from otprune_lmms.reporting.tables.prefill import prefill_costs
from otprune_lmms.reporting.tables.references import (
    References,
    check_references,
    doubted_tasks,
    references_of,
)
from otprune_lmms.reporting.tables.settings import RowSetting, settings_of, with_planned
from otprune_lmms.results.columns import Budget
from otprune_lmms.results.frames import Frame, PandasSeries
from otprune_lmms.results.manifest import Manifest, PrintedRow
from otprune_lmms.results.names import names_of
from otprune_lmms.results.records import UNPRUNED, Convention


def make_table(
    records: Frame,
    manifest: Manifest,
    *,
    intervals: Intervals | None = None,
    quartiles: Quartiles | None = None,
    convention: Convention = "2ndm",
    answer_columns: Sequence[str] = (),
    references: References | None = None,
) -> ResultsTable:
    """Return the table of an experiment.

    Seeds of one setting are averaged. Rows of one budget share a block; ranks and marks are taken
    within it.

    Args:
        records: as `read_records` returns them.
        manifest: what the experiment asks for, and what is known of the models.
        intervals: of the statistics; None for a table without.
        quartiles: of kept tokens, for the budgets; None for none.
        convention: how multiply-adds are counted, see `otprune.cost`.
        answer_columns: columns about the answers, of `statistics.answers.QUANTITIES`.
        references: where the unpruned scores should be; None for `references_of`.

    Raises:
        ValueError: no records, an impossible reference, an unknown convention or column.
    """
    if records.empty:
        raise ValueError("a table needs records")
    names = names_of(records, manifest.configs)
    found = settings_of(records, names)
    settings = with_planned(found, manifest.models, manifest.planned, names)
    heads = heads_of(records, manifest.tasks)
    checks = check_references(
        records, references_of(manifest) if references is None else references
    )
    costs = prefill_costs(records, convention)
    cost, unit = cost_columns(costs.values(), convention)
    columns = columns_of(
        heads, cost, any(one.by_layer for one in settings), quantities=answer_columns
    )
    numbers = Numbers(records, intervals or Intervals(), costs, unit, doubted_tasks(checks))
    parts = tuple(
        TablePart(
            model, (*_blocks(own, columns, numbers), *published_blocks(model, manifest, columns))
        )
        for model, own in _by_model(settings).items()
    )
    context = NoteContext(
        records, manifest, settings, heads, columns, numbers, checks, convention, names
    )
    table = ResultsTable(_title(records, manifest.title), columns, parts, notes(context, parts))
    facts = BudgetFacts(
        records, manifest, {one.key: one for one in settings}, costs, quartiles or {}
    )
    budgets = budget_ledger(table, facts)
    return replace(table, notes=(*table.notes, *warnings_of(budgets)), budgets=budgets)


def _by_model(settings: Sequence[RowSetting]) -> Mapping[str, list[RowSetting]]:
    found: dict[str, list[RowSetting]] = {}
    for setting in settings:
        found.setdefault(setting.model, []).append(setting)
    return found


def _blocks(
    settings: Sequence[RowSetting], columns: Sequence[Column], numbers: Numbers
) -> list[Block]:
    blocks = [
        Block("upper", _upper_title(one, numbers), (numbers.row(one, columns),))
        for one in settings
        if one.row == UNPRUNED
    ]
    budgets: dict[Budget, list[RowSetting]] = {}
    for one in settings:
        if one.row != UNPRUNED:
            budgets.setdefault(one.budget, []).append(one)
    known = (numbers.mean(one, "visual_tokens") for one in settings)
    visual = next((one for one in known if one is not None), 1.0)
    # As the papers print them: the largest budget first.
    ordered = sorted(budgets, key=lambda budget: -_size(budget, visual))
    return blocks + [_retain(budget, budgets[budget], columns, numbers) for budget in ordered]


def _retain(
    budget: Budget, settings: Sequence[RowSetting], columns: Sequence[Column], numbers: Numbers
) -> Block:
    title = _retain_title(budget, settings, numbers)
    if budget.own_schedule:
        # Their costs differ, so they are neither ranked nor marked.
        return Block("retain", title, tuple(numbers.row(one, columns) for one in settings))
    rows = [
        _with_rank(numbers.row(one, columns), rank, columns)
        for one, rank in zip(settings, numbers.ranks(settings), strict=True)
    ]
    # Averages over different tasks cannot be compared.
    alike = len({numbers.compared(one) for one in settings if one.seeds}) < 2
    compared = [
        column if alike or column.kind != "relative" else replace(column, kind="plain")
        for column in columns
    ]
    return Block("retain", title, marked(rows, compared))


def _with_rank(row: TableRow, rank: float | None, columns: Sequence[Column]) -> TableRow:
    entries = [
        Entry(rank) if column.kind == "rank" and rank is not None else entry
        for column, entry in zip(columns, row.entries, strict=True)
    ]
    return replace(row, entries=tuple(entries))


def _size(budget: Budget, visual: float) -> float:
    """Return about how many tokens a budget keeps; schedules without one go last."""
    return budget.k or (budget.keep_ratio or 0.0) * visual


def _upper_title(setting: RowSetting, numbers: Numbers) -> str:
    visual = numbers.mean(setting, "visual_tokens")
    return (
        "Upper bound" if visual is None else f"Upper bound: {_count(visual)} visual tokens (100 %)"
    )


def _retain_title(budget: Budget, settings: Sequence[RowSetting], numbers: Numbers) -> str:
    head = _head(budget)
    layers = any(one.by_layer for one in settings)
    amounts = [
        numbers.layer_tokens(one) if layers else numbers.mean(one, "kept_tokens")
        for one in settings
    ]
    kept = sorted(amount for amount in amounts if amount is not None)
    found = (numbers.mean(one, "visual_tokens") for one in settings)
    visual = [one for one in found if one is not None]
    if not kept or not visual or not visual[0]:
        return head
    least, most = _count(kept[0]), _count(kept[-1])
    tokens = least if least == most else f"{least} to {most}"
    retained = f"{tokens} of {_count(visual[0])} tokens"
    retained += " in a layer on average" if layers else ""
    if budget.own_schedule:
        return f"{head} ({retained})"
    down = 100 * (1 - sum(kept) / len(kept) / visual[0])
    return f"{head} ({retained}, down {down:.1f} %)"


def _head(budget: Budget) -> str:
    if budget.own_schedule:
        return "Own schedules"
    about = "Retain multiply-adds of" if budget.multiply_adds else "Retain"
    return f"{about} {budget.amount}" if budget.k is None else f"{about} k = {budget.k}"


def _count(number: float) -> str:
    return f"{number:.0f}" if abs(number - round(number)) < 0.05 else f"{number:.1f}"


def _title(records: Frame, title: str) -> str:
    if set(records["suite"]) == {"mini"}:
        return f"{title} (mini suite: embedded data, not the paper's benchmarks)"
    return title


def marked(rows: Sequence[TableRow], columns: Sequence[Column]) -> tuple[TableRow, ...]:
    """Return the rows of a block with their best and second best numbers marked.

    Numbers that are shown alike are marked alike; the second best is the next number shown. Nothing
    is marked where all are alike, or only one row has a number. Plain numbers and costs are never
    marked.
    """
    entries = [list(row.entries) for row in rows]
    for place, column in enumerate(columns):
        if column.kind in ("plain", "cost"):
            continue
        for row, mark in enumerate(_marks([row.entries[place] for row in rows], column)):
            entries[row][place] = replace(entries[row][place], mark=mark)
    return tuple(replace(row, entries=tuple(own)) for row, own in zip(rows, entries, strict=True))


def _marks(entries: Sequence[Entry], column: Column) -> list[Mark | None]:
    shown = [None if one.value is None else round(one.value, column.digits) for one in entries]
    levels = sorted({x for x in shown if x is not None}, reverse=column.kind != "rank")
    if len(levels) < 2:
        return [None] * len(entries)
    marks: dict[float, Mark] = {levels[0]: "best", levels[1]: "second"}
    return [None if x is None else marks.get(x) for x in shown]


def published_blocks(model: str, manifest: Manifest, columns: Sequence[Column]) -> list[Block]:
    """Return one block for each source that prints something of a model.

    Published numbers are never marked, ranked or averaged with ours. Their relative averages are
    computed here, of the printed scores in this table, against the unpruned row of the same source;
    without one there is none.
    """
    tasks = [column.task for column in columns if column.task is not None]
    sources: dict[str, list[PrintedRow]] = {}
    for row in manifest.published:
        if row.model == model:
            sources.setdefault(row.source, []).append(row)
    blocks = []
    for source, rows in sources.items():
        base = next((_series(row.scores, tasks) for row in rows if row.unpruned), None)
        shown = [(row, _series(row.scores, tasks)) for row in rows]
        published = tuple(
            TableRow(
                row.row,
                row.row,
                row.row,
                tuple(_published_entry(own, base, column) for column in columns),
            )
            for row, own in shown
        )
        blocks.append(Block("published", f"As published, not run here: {source}", published))
    return blocks


def _published_entry(own: PandasSeries, base: PandasSeries | None, column: Column) -> Entry:
    if column.kind == "score":
        value = float(own.at[column.task])
    elif column.rule is not None and base is not None:
        value = AVERAGE[column.rule](own, base)
    else:
        return Entry()
    return Entry(None if math.isnan(value) else value)


def _series(scores: Mapping[str, float], tasks: Sequence[str]) -> PandasSeries:
    return pd.Series(scores, dtype=float).reindex(tasks)
