"""A table as data: columns, and for each model blocks of rows. Renderers draw it.

Numbers are shown alike in every format: `shown`, `interval_text`, `beside`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

ColumnKind = Literal["plain", "cost", "score", "relative", "rank"]
Mark = Literal["best", "second"]

MISSING = "–"
"""Stands where there is no number: not computed, or not printed by the paper."""

NOT_RUN = "not run"
"""Stands where a setting of the experiment has not been run."""

DOUBT = "†"
"""Marks a number whose unpruned score fails its reference check."""

FIRST_HEADING = "setting"
"""Heading of the first column."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of numbers.

    Attributes:
        name: the heading.
        kind: what the numbers are. The best score or relative score is the largest, the best rank
            the smallest. "plain" numbers and costs (multiply-adds) have no best and are never
            marked; plain ones stand in `ResultsTable.rows`, costs do not.
        digits: decimals shown.
        task: whose score it is; None for columns that are about all tasks.
        rule: of a relative average (`statistics.averages`); None for other columns.
        quantity: of `statistics.answers.QUANTITIES`; None for other columns.
        records: column of the records whose mean over a row's tasks is shown; None for others.
        explanation: what the numbers are, for the notes; None where a note of its own says so.
    """

    name: str
    kind: ColumnKind
    digits: int = 1
    task: str | None = None
    rule: str | None = None
    quantity: str | None = None
    records: str | None = None
    explanation: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A number of the table.

    Attributes:
        value: in the unit of its column; None where there is none.
        empty: what stands there then.
        low: lower end of the 95 % interval, where there is one.
        high: upper end.
        spread: standard deviation over seeds, of several.
        mark: best or second best of its block, as shown.
        doubted: the unpruned score of the run fails its reference check.
    """

    value: float | None = None
    empty: str = MISSING
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    mark: Mark | None = None
    doubted: bool = False


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of the table: a setting, its seeds together.

    Attributes:
        label: ``row`` of the records; of published rows the paper's name.
        name: what readers are shown (`results.names`), without the budget that is in the title of
            the block.
        whole: the same with its budget; rows of one model have different ones.
        entries: one for each column.
        method: None for unpruned and published rows.
        keep_ratio: share of the tokens; or
        k: how many.
        layer: where it prunes.
        seeds: how many were averaged.
        visual_tokens: of an image before pruning, mean.
    """

    label: str
    name: str
    whole: str
    entries: tuple[Entry, ...]
    method: str | None = None
    keep_ratio: float | None = None
    k: int | None = None
    layer: int = 0
    seeds: int = 1
    visual_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that may be compared: those of one budget.

    Attributes:
        kind: "upper" for the unpruned model, "retain" for a budget, "published" for a paper's.
        title: the budget, or the source.
        rows: at least one.
    """

    kind: Literal["upper", "retain", "published"]
    title: str
    rows: tuple[TableRow, ...]


@dataclass(frozen=True, slots=True)
class TablePart:
    """The blocks of one model."""

    model: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class ResultsTable:
    """The table of an experiment.

    Attributes:
        title: what was run; of the mini suite also that it is not the benchmarks themselves.
        columns: one for each entry of a row.
        parts: one for each model.
        notes: what a reader must know.
        budgets: what each row spends, in the same blocks (`tables.budgets`); None for a table that
            is itself of budgets.
    """

    title: str
    columns: tuple[Column, ...]
    parts: tuple[TablePart, ...]
    notes: tuple[str, ...]
    budgets: "ResultsTable | None" = None

    @property
    def rows(self) -> tuple[tuple[str | float | None, ...], ...]:
        """Our rows: label, plain numbers, scores and relative scores; None where there is none.

        Ranks and marks depend on the other rows of a block, costs on the convention. All three are
        left out, so a setting's row is the same in every table.
        """
        shown = [i for i, c in enumerate(self.columns) if c.kind not in ("cost", "rank")]
        return tuple(
            (row.label, *(row.entries[i].value for i in shown)) for _, _, row in self.ours()
        )

    def ours(self) -> Iterator[tuple[TablePart, Block, TableRow]]:
        """Yield the rows of the experiment, without published ones, with their part and block."""
        for part in self.parts:
            for block in part.blocks:
                if block.kind != "published":
                    for row in block.rows:
                        yield part, block, row

    @property
    def intervals(self) -> bool:
        """Whether any number has an interval."""
        return any(entry.low is not None for *_, row in self.ours() for entry in row.entries)


def shown(entry: Entry, column: Column, doubt: str = DOUBT) -> str:
    """Return an entry's number, or what stands in its place."""
    if entry.value is None:
        return entry.empty
    return f"{entry.value:.{column.digits}f}" + (doubt if entry.doubted else "")


def interval_text(entry: Entry, column: Column) -> str:
    """Return an entry's interval, "" without one."""
    if entry.low is None or entry.high is None:
        return ""
    return f"[{entry.low:.{column.digits}f}, {entry.high:.{column.digits}f}]"


def beside(entry: Entry, column: Column) -> str:
    """Return the interval that stands beside its number: not that of a score, which has a table."""
    return "" if column.kind == "score" else interval_text(entry, column)
