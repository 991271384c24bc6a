"""What a reader of a table must know, in sentences below it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from otprune_lmms.benchmarks import Benchmark
from otprune_lmms.reporting.tables.columns import MEAN, RANK, SHARE
from otprune_lmms.reporting.tables.cost import Convention
from otprune_lmms.reporting.tables.gate import Verdict, Verdicts
from otprune_lmms.reporting.tables.layout import Column, Part
from otprune_lmms.reporting.tables.numbers import Numbers
from otprune_lmms.reporting.tables.settings import Setting
from otprune_lmms.results.manifest import Manifest
from otprune_lmms.results.records import UNPRUNED, documents_of

RULE = "mean over tasks of score / unpruned score"

DOUBT = "†"
"""Marks a number whose unpruned model is not where it should be."""

_FORMULA = {"2ndm": "4nd² + 2n²d + 2ndm", "3ndm": "4nd² + 2n²d + 3ndm"}
_USERS = {
    "2ndm": "FastV, DivPrune and OTPrune",
    "3ndm": "SparseVLM, PyramidDrop and TransPrune",
}
_LACKING = {
    "not measured": "the unpruned model has no score",
    "no reference": "no reference for the unpruned score",
}
_LISTED = 6
"""So many names are listed in a note; of more, how many there are."""


@dataclass(frozen=True)
class Told:
    """What the notes are about."""

    records: pd.DataFrame
    manifest: Manifest
    settings: Sequence[Setting]
    heads: Mapping[str, Benchmark]
    columns: Sequence[Column]
    numbers: Numbers
    verdicts: Verdicts
    convention: Convention

    def column(self, task: str) -> str:
        """Return the heading of a task."""
        return next(column.name for column in self.columns if column.task == task)

    def among(self, tasks: Sequence[str]) -> str:
        """Return the headings of some tasks."""
        return ", ".join(self.column(task) for task in tasks)


def notes(told: Told, parts: Sequence[Part]) -> tuple[str, ...]:
    """Return the notes of a table, the doubts first after what the columns are."""
    return (
        *_units(told),
        *_gate(told),
        *_cost(told),
        *_layers(told),
        *_budgets(told),
        *_seeds(told, parts),
        *_missing(told),
        *_intervals(told, parts),
        *_published(parts),
    )


def _units(told: Told) -> Iterator[str]:
    def unit(task: str, head: Benchmark) -> str:
        times = " x 100" if head.scale == 100 else ""
        return f"{told.column(task)} = {task} {head.metric}{times}"

    yield "; ".join(unit(task, head) for task, head in told.heads.items())
    first, second = (column.name for column in told.columns if column.rule is not None)
    divided = "".join(
        f", {' '.join(filter(None, (one.title, one.counted)))} / {one.ratio_divisor:g}"
        for one in told.heads.values()
        if one.ratio_divisor != 1
    )
    yield (
        f"{first}: {RULE} of the same model, in percent; {second}: mean score / mean unpruned "
        f"score{divided}, in percent; {RANK}: mean over tasks of the rank among the "
        "pruned rows of the block, 1 the best, ties share; tokens: kept an image, mean"
    )
    yield "bold: best of its block; underlined: second best; numbers shown alike are marked alike"


def _gate(told: Told) -> Iterator[str]:
    unknown: dict[tuple[str, str], list[str]] = {}
    for model, tasks in told.verdicts.items():
        for task, one in tasks.items():
            if one.status == "outside":
                yield _failed(told, one)
            elif one.status != "within":
                unknown.setdefault((model, one.status), []).append(task)
    for (model, status), tasks in unknown.items():
        every = len(tasks) == len(told.verdicts[model])
        where = "all tasks" if every else told.among(tasks)
        yield f"{model}: {_LACKING[status]} ({where}); nothing vouches for the pruned scores there"


def _failed(told: Told, one: Verdict) -> str:
    if one.anchor is None or one.value is None:
        raise ValueError(f"a verdict outside needs value and anchor, got {one}")
    digits = told.heads[one.task].digits
    source = f" ({one.anchor.source})" if one.anchor.source else ""
    return (
        f"{DOUBT} {one.model} {told.column(one.task)}: unpruned {one.value:.{digits}f}, reference "
        f"{one.anchor.value:g}{source}: outside ±{one.anchor.tolerance:g}, pruned scores below it "
        "are not to be trusted"
    )


def _cost(told: Told) -> Iterator[str]:
    spent = next((column for column in told.columns if column.kind == "cost"), None)
    if spent is None:
        yield (
            "no column of multiply-adds: the folder does not say the model's decoder and the text "
            "tokens of its prompts"
        )
        return
    yield (
        f"{spent.name}: multiply-adds of one prefill in {spent.name[0]} (10^"
        f"{ {'T': 12, 'G': 9, 'M': 6}[spent.name[0]] }), {_FORMULA[told.convention]} a layer for n "
        f"text and visual tokens, d channels, m in the feed-forward network; what "
        f"{_USERS[told.convention]} print as FLOPs; {SHARE}: mean over tasks of pruned / unpruned. "
        "Vision tower, output head and the pruning itself are left out"
    )
    models = dict.fromkeys(setting.model for setting in told.settings)
    texts = told.manifest.text_tokens
    for model in models:
        tokens = texts.get(model, {})
        if not any(known == model for known, _ in told.numbers.costs):
            yield f"{model}: multiply-adds unknown"
            continue
        lengths = ", ".join(
            f"{told.column(task)} {tokens[task]:.1f}" for task in told.heads if task in tokens
        )
        yield f"{model}: text tokens a prompt, mean: {lengths}"


def _layers(told: Told) -> Iterator[str]:
    inside = sorted({setting.layer for setting in told.settings if setting.layer})
    if inside:
        listed = ", ".join(str(layer) for layer in inside)
        yield (
            f"layer {listed}: pruned at the input of that layer of the language model; the layers "
            "before it see all tokens"
        )


def _budgets(told: Told) -> Iterator[str]:
    if any(column.name == MEAN for column in told.columns):
        yield (
            f"{MEAN}: visual tokens of an image that enter a layer of the language model, of what "
            "was measured and, where tokens are dropped at several layers, of the schedule; tokens "
            "are those left after the last layer that drops some"
        )
    if any(one.own_schedule for one in told.settings):
        yield "own schedules: each at its own cost, so neither ranked nor marked"


def _seeds(told: Told, parts: Sequence[Part]) -> Iterator[str]:
    several = sum(1 for part in parts if part.blocks) > 1
    for part in parts:
        for row in (row for block in part.blocks for row in block.rows):
            if row.seeds < 2:
                continue
            spread = ", ".join(
                f"{column.name} {entry.spread:.{column.digits}f}"
                for column, entry in zip(told.columns, row.entries, strict=True)
                if entry.spread is not None
            )
            model = f"{part.model} " if several else ""
            yield (
                f"{model}{row.label}: mean of {row.seeds} seeds"
                + (f"; standard deviation: {spread}" if spread else "")
            )


def _missing(told: Told) -> Iterator[str]:
    lacking = told.records.dropna(subset=["missing"])
    for reason, some in lacking.groupby("missing", sort=False):
        names = ", ".join(dict.fromkeys(some["task"]))
        yield f"not computed ({reason}): {names}; relative averages leave them out"
    whole = told.numbers.scores
    counts: dict[str, int] = {}
    for tasks in documents_of(told.records).values():
        for task, count in tasks.items():
            counts[task] = max(count, counts.get(task, 0))
    yield "documents: " + ", ".join(
        f"{task} {count}" + (" (the first)" if task in told.manifest.limited else "")
        for task, count in counts.items()
    )
    for task, count in told.manifest.left_out.items():
        yield f"{task}: {count} documents could not be asked and are left out of every row"
    bases = whole[whole.index.get_level_values("row") == UNPRUNED]
    zero = [str(task) for task in bases if 0 in list(bases[task])]
    if zero:
        yield f"unpruned scores 0 on {', '.join(zero)}; the mean of ratios leaves them out"
    yield from _uneven(told)


def _uneven(told: Told) -> Iterator[str]:
    """Say which rows are averaged over fewer tasks than others of their model."""
    for model in dict.fromkeys(setting.model for setting in told.settings):
        sets = {
            one.label: told.numbers.compared(one)
            for one in told.settings
            if one.model == model and one.cells
        }
        most = max((len(tasks) for tasks in sets.values()), default=0)
        if not most and sets:
            yield f"{model}: no unpruned row, so nothing is relative to it"
        fewer = [label for label, tasks in sets.items() if 0 < len(tasks) < most]
        for label in fewer[:_LISTED]:
            yield (
                f"{model} {label}: relative averages over {len(sets[label])} of {most} tasks, not "
                "to be compared with the others'"
            )
        if len(fewer) > _LISTED:
            yield f"{model}: so are {len(fewer) - _LISTED} more rows"


def _intervals(told: Told, parts: Sequence[Part]) -> Iterator[str]:
    entries = (
        entry
        for part in parts
        for block in part.blocks
        for row in block.rows
        for entry in row.entries
    )
    if any(entry.low is not None for entry in entries):
        yield "[low, high]: 95 % intervals over documents; how they were made: statistics.md"
    for model, row in sorted(told.numbers.stale):
        yield f"{model} {row}: its intervals are of other records and left out; make them anew"


def _published(parts: Sequence[Part]) -> Iterator[str]:
    if any(block.kind == "published" for part in parts for block in part.blocks):
        yield (
            "as published: the paper's own numbers, never marked or ranked with ours; their "
            "relative averages are computed here, of the printed scores, against the unpruned row "
            "of the same source"
        )
