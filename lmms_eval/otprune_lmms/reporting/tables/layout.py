"""A table as data: columns, and for each model blocks of rows; renderers draw it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["tokens", "cost", "score", "relative", "rank"]
Mark = Literal["best", "second"]

MISSING = "–"
"""Stands where there is no number: not computed, or not printed by the paper."""

NOT_RUN = "not run"
"""Stands where a cell of the experiment has not been run."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of numbers.

    Attributes:
        name: the heading.
        kind: what the numbers are; the best of scores and relative scores is the largest, of ranks
            the smallest, tokens and costs have none.
        digits: decimals shown.
        task: whose score it is; None where it is no task's.
        rule: of a relative average (`statistics.averages`); None for other columns.
    """

    name: str
    kind: Kind
    digits: int = 1
    task: str | None = None
    rule: str | None = None


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
        doubted: the unpruned model of the run is not where it should be.
    """

    value: float | None = None
    empty: str = MISSING
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    mark: Mark | None = None
    doubted: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A setting.

    Attributes:
        label: the setting, as in the records; of published rows what the paper calls it.
        name: the same without its budget, which the block says.
        entries: one for each column.
        method: None for unpruned and published rows.
        keep_ratio: share kept; or
        k: how many.
        layer: where it prunes.
        seeds: how many were averaged.
        visual_tokens: mean of an image before pruning.
    """

    label: str
    name: str
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
        title: says the budget, or the source.
        rows: at least one.
    """

    kind: Literal["upper", "retain", "published"]
    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """The blocks of one model."""

    model: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Wide:
    """The table of an experiment.

    Attributes:
        title: says what was run, and of the mini suite that it is not the benchmarks themselves.
        columns: one for each entry of a row.
        parts: one for each model.
        notes: what a reader must know.
    """

    title: str
    columns: tuple[Column, ...]
    parts: tuple[Part, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> tuple[tuple[str | float | None, ...], ...]:
        """Our rows: label, tokens, scores and relative scores; None where there is none.

        What hangs on the other rows of a block (ranks, marks) is not among them, nor is what a
        formula says (cost), so a setting's row is the same in every table.
        """
        shown = [i for i, c in enumerate(self.columns) if c.kind not in ("cost", "rank")]
        return tuple(
            (row.label, *(row.entries[i].value for i in shown)) for _, _, row in self.ours()
        )

    def ours(self) -> Iterator[tuple[Part, Block, Row]]:
        """Yield the rows that were run or asked for here, with their model and block."""
        for part in self.parts:
            for block in part.blocks:
                if block.kind != "published":
                    for row in block.rows:
                        yield part, block, row

    @property
    def intervals(self) -> bool:
        """Whether any number has an interval."""
        return any(entry.low is not None for *_, row in self.ours() for entry in row.entries)
