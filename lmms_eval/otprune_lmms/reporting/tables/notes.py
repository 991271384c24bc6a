"""The notes below a table: what its columns mean, and what a reader must know of its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from otprune_lmms.benchmarks import Benchmark
from otprune_lmms.reporting.tables.columns import LAYER_MEAN, SHARE, Numbers
from otprune_lmms.reporting.tables.layout import DOUBT, Column, TablePart
from otprune_lmms.reporting.tables.references import ReferenceCheck, ReferenceChecks
from otprune_lmms.reporting.tables.settings import RowSetting
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import Manifest
from otprune_lmms.results.names import CONTROLS, Names, method_name
from otprune_lmms.results.records import UNPRUNED, Convention, documents_of

_FORMULA = {"2ndm": "4nd² + 2n²d + 2ndm", "3ndm": "4nd² + 2n²d + 3ndm"}
_USERS = {
    "2ndm": "FastV, DivPrune and OTPrune",
    "3ndm": "SparseVLM, PyramidDrop and TransPrune",
}
_POWERS = {"T": 12, "G": 9, "M": 6}
_LACKING = {
    "not measured": "the unpruned model has no score",
    "no reference": "no reference for the unpruned score",
}
_LISTED = 6
"""So many names are listed in a note; of more, how many there are."""


@dataclass(frozen=True)
class NoteContext:
    """A table and what it was made of, for its notes.

    Attributes:
        records: of the experiment.
        manifest: of the run.
        settings: of the rows.
        heads: record of each task.
        columns: of the table.
        numbers: of the rows.
        checks: of the unpruned scores.
        convention: of the multiply-adds.
        names: of the rows.
    """

    records: Frame
    manifest: Manifest
    settings: Sequence[RowSetting]
    heads: Mapping[str, Benchmark]
    columns: Sequence[Column]
    numbers: Numbers
    checks: ReferenceChecks
    convention: Convention
    names: Names

    def column(self, task: str) -> str:
        """Return the heading of a task."""
        return next(column.name for column in self.columns if column.task == task)

    def among(self, tasks: Sequence[str]) -> str:
        """Return the headings of some tasks."""
        return ", ".join(self.column(task) for task in tasks)


def notes(context: NoteContext, parts: Sequence[TablePart]) -> tuple[str, ...]:
    """Return the notes of a table, failed reference checks right after what the columns are."""
    return (
        *_units(context),
        *_references(context),
        *_cost(context),
        *_layers(context),
        *_budgets(context),
        *_controls(context),
        *_unsaid(context),
        *_seeds(context, parts),
        *_missing(context),
        *_cut(context),
        *_intervals(context, parts),
        *_published(parts),
    )


def _units(context: NoteContext) -> Iterator[str]:
    def unit(task: str, head: Benchmark) -> str:
        times = " x 100" if head.scale == 100 else ""
        return f"{context.column(task)} = {task} {head.metric}{times}"

    yield "; ".join(unit(task, head) for task, head in context.heads.items())
    explained = [column for column in context.columns if column.explanation is not None]
    # What compares the rows first.
    explained.sort(key=lambda column: column.kind not in ("relative", "rank"))
    yield "; ".join(f"{column.name}: {column.explanation}" for column in explained)
    yield "bold: best of its block; underlined: second best; numbers shown alike are marked alike"


def _references(context: NoteContext) -> Iterator[str]:
    unknown: dict[tuple[str, str], list[str]] = {}
    for model, tasks in context.checks.items():
        for task, one in tasks.items():
            if one.status == "outside":
                yield _failed(context, one)
            elif one.status != "within":
                unknown.setdefault((model, one.status), []).append(task)
    for (model, status), tasks in unknown.items():
        every = len(tasks) == len(context.checks[model])
        where = "all tasks" if every else context.among(tasks)
        yield (f"{model}: {_LACKING[status]} ({where}), so the unpruned model is not checked there")


def _failed(context: NoteContext, one: ReferenceCheck) -> str:
    if one.reference is None or one.value is None:
        raise ValueError(f"a failed check needs value and reference, got {one}")
    digits = context.heads[one.task].digits
    source = f" ({one.reference.source})" if one.reference.source else ""
    return (
        f"{DOUBT} {one.model} {context.column(one.task)}: unpruned {one.value:.{digits}f}, "
        f"reference {one.reference.value:g}{source}: outside ±{one.reference.tolerance:g}, so the "
        "pruned scores of this task are not to be trusted"
    )


def _cost(context: NoteContext) -> Iterator[str]:
    cost = next((column for column in context.columns if column.kind == "cost"), None)
    if cost is None:
        yield "no column of multiply-adds: the records do not hold them"
        return
    prefix = cost.name[0]
    yield (
        f"{cost.name}: multiply-adds of one prefill in {prefix} (10^{_POWERS[prefix]}), "
        f"{_FORMULA[context.convention]} a layer for n text and visual tokens, d channels, m in "
        f"the feed-forward network; what {_USERS[context.convention]} print as FLOPs; {SHARE}: "
        "mean over tasks of pruned / unpruned. Vision encoder, output head and the pruning itself "
        "are left out"
    )
    costs = context.numbers.costs.items()
    known = {model for (model, _), one in costs if one.multiply_adds is not None}
    for model in dict.fromkeys(setting.model for setting in context.settings):
        tokens = context.manifest.text_tokens.get(model, {})
        lengths = ", ".join(
            f"{context.column(task)} {tokens[task]:.1f}" for task in context.heads if task in tokens
        )
        if model not in known:
            yield f"{model}: multiply-adds unknown"
        elif lengths:
            yield f"{model}: text tokens a prompt, mean: {lengths}"


def _layers(context: NoteContext) -> Iterator[str]:
    inside = sorted({setting.layer for setting in context.settings if setting.layer})
    if inside:
        listed = ", ".join(str(layer) for layer in inside)
        yield (
            f"layer {listed}: pruned at the input of that layer of the language model; the layers "
            "before it process all tokens"
        )


def _budgets(context: NoteContext) -> Iterator[str]:
    if any(column.name == LAYER_MEAN for column in context.columns):
        yield (
            f"{LAYER_MEAN}: visual tokens of an image that enter a layer of the language model, by "
            "the measured counts or, where tokens are dropped at several layers, by the schedule; "
            "tokens: those kept after the last layer that drops some"
        )
    if any(one.own_schedule for one in context.settings):
        yield "own schedules: each has a cost of its own, so they are neither ranked nor marked"


def _controls(context: NoteContext) -> Iterator[str]:
    """Say which rows are controls, and which controls are not there."""
    methods = {one.method for one in context.settings}
    if methods <= {None, *CONTROLS}:
        return
    there = [method_name(one) for one in CONTROLS if one in methods]
    absent = [method_name(one) for one in CONTROLS if one not in methods]
    if there:
        yield f"controls, which a method must beat at equal tokens: {', '.join(there)}"
    if absent:
        yield f"controls that are not in this table: {', '.join(absent)}"


def _unsaid(context: NoteContext) -> Iterator[str]:
    """Say which settings names leave out, since all rows of a method have them."""
    words = "; ".join(f"{name}: {settings}" for name, settings in context.names.unsaid.items())
    if words:
        yield f"settings beside the defaults that no name says: {words}"


def _seeds(context: NoteContext, parts: Sequence[TablePart]) -> Iterator[str]:
    several = sum(1 for part in parts if part.blocks) > 1
    for part in parts:
        for row in (row for block in part.blocks for row in block.rows):
            if row.seeds < 2:
                continue
            spread = ", ".join(
                f"{column.name} {entry.spread:.{column.digits}f}"
                for column, entry in zip(context.columns, row.entries, strict=True)
                if entry.spread is not None
            )
            model = f"{part.model} " if several else ""
            yield (
                f"{model}{row.whole}: mean of {row.seeds} seeds"
                + (f"; standard deviation: {spread}" if spread else "")
            )


def _missing(context: NoteContext) -> Iterator[str]:
    lacking = context.records.dropna(subset=["missing"])
    for reason, some in lacking.groupby("missing", sort=False):
        names = ", ".join(dict.fromkeys(some["task"]))
        yield f"not computed ({reason}): {names}; relative averages leave them out"
    whole = context.numbers.scores
    counts: dict[str, int] = {}
    for tasks in documents_of(context.records).values():
        for task, count in tasks.items():
            counts[task] = max(count, counts.get(task, 0))
    yield "documents: " + ", ".join(
        f"{task} {count}" + (" (the first)" if task in context.manifest.limited else "")
        for task, count in counts.items()
    )
    for task, count in context.manifest.left_out.items():
        yield f"{task}: {count} documents could not be used and are left out of every row"
    bases = whole[whole.index.get_level_values("row") == UNPRUNED]
    zero = [str(task) for task in bases if 0 in list(bases[task])]
    if zero:
        yield f"unpruned scores 0 on {', '.join(zero)}; the mean of ratios leaves them out"
    yield from _uneven(context)


def _cut(context: NoteContext) -> Iterator[str]:
    """Say in which rows prompts were cut, and what that means where it is the unpruned row."""
    known = context.records.fillna({"truncated": 0}).drop_duplicates(["model", "setting", "task"])
    cut = known[known["truncated"] > 0]
    for (model, task), some in cut.groupby(["model", "task"], sort=False):
        counts = some.groupby("row", sort=False)["truncated"].max().astype(int)
        where, documents = f"{model} {context.column(str(task))}", int(some["documents"].max())
        if UNPRUNED in counts:
            yield (
                f"{DOUBT} {where}: {counts.pop(UNPRUNED)} of {documents} prompts are longer than "
                "the unpruned model takes and lost their ends, so comparisons with it are unfair"
            )
        if len(counts):
            rows = ", ".join(
                f"{context.names.whole(row)}: {count}"
                for row, count in list(counts.items())[:_LISTED]
            )
            more = f", and {len(counts) - _LISTED} more rows" if len(counts) > _LISTED else ""
            yield f"{where}: of {documents} prompts lost their ends: {rows}{more}"


def _uneven(context: NoteContext) -> Iterator[str]:
    """Say which rows are averaged over fewer tasks than others of their model."""
    for model in dict.fromkeys(setting.model for setting in context.settings):
        sets = {
            one.row: context.numbers.compared(one)
            for one in context.settings
            if one.model == model and one.seeds
        }
        most = max((len(tasks) for tasks in sets.values()), default=0)
        if not most and sets:
            yield f"{model}: no unpruned row, so nothing is relative to it"
        fewer = [row for row, tasks in sets.items() if 0 < len(tasks) < most]
        for row in fewer[:_LISTED]:
            yield (
                f"{model} {context.names.whole(row)}: relative averages over {len(sets[row])} of "
                f"{most} tasks, not comparable with the others'"
            )
        if len(fewer) > _LISTED:
            yield f"{model}: so are those of {len(fewer) - _LISTED} more rows"


def _intervals(context: NoteContext, parts: Sequence[TablePart]) -> Iterator[str]:
    entries = (
        entry
        for part in parts
        for block in part.blocks
        for row in block.rows
        for entry in row.entries
    )
    if any(entry.low is not None for entry in entries):
        yield "[low, high]: 95 % intervals over documents; how they were made: statistics.md"
    for model, row in sorted(context.numbers.stale):
        yield (
            f"{model} {context.names.whole(row)}: its intervals are of other records and left out; "
            "`otprune sweep` makes them anew"
        )


def _published(parts: Sequence[TablePart]) -> Iterator[str]:
    if any(block.kind == "published" for part in parts for block in part.blocks):
        yield (
            "as published: the paper's own numbers, never marked or ranked with ours; their "
            "relative averages are computed here, of the printed scores, against the unpruned row "
            "of the same source"
        )
