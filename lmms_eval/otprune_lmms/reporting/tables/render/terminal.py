"""The table on a terminal: folded between columns where it is too wide, numbers never cut."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from otprune_lmms.reporting.tables.layout import (
    FIRST_HEADING,
    Column,
    Entry,
    ResultsTable,
    TablePart,
    TableRow,
    beside,
    shown,
)
from otprune_lmms.terminal_text import printable

_GAP = 2
"""Blanks between columns."""

_STYLE = {"best": "bold", "second": "underline", None: ""}


def terminal(table: ResultsTable) -> "Drawing":
    """Return what rich prints: the title, and each model's blocks.

    A terminal that is too narrow gets the columns in several turns, each with the names of the
    rows. What it needs at least is the widest name and the widest column.
    """
    return Drawing(table)


@dataclass(frozen=True)
class Drawing:
    """A table that rich can print."""

    table: ResultsTable

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the width of the narrowest fold and that of no fold at all."""
        widths = [_width(self.table, place) for place in range(len(self.table.columns))]
        first = _first_width(self.table)
        return Measurement(first + _GAP + max(widths), first + sum(w + _GAP for w in widths))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the title, then each model's table, folded to the width of the console."""
        yield Text(printable(self.table.title), style="bold")
        for part in self.table.parts:
            if len(self.table.parts) > 1:
                yield Text(printable(f"\n{part.model}"), style="bold")
            for places in folds(self.table, options.max_width):
                yield Text("")
                yield from _fold(self.table, part, places)


def folds(table: ResultsTable, width: int) -> list[list[int]]:
    """Return which columns are shown in each turn: as many as fit, at least one."""
    turns: list[list[int]] = [[]]
    used = first = _first_width(table)
    for place in range(len(table.columns)):
        needed = _GAP + _width(table, place)
        if turns[-1] and used + needed > width:
            turns.append([])
            used = first
        turns[-1].append(place)
        used += needed
    return turns


def _fold(table: ResultsTable, part: TablePart, places: Sequence[int]) -> Iterator[Table | Text]:
    columns = [table.columns[place] for place in places]
    widths = [_first_width(table), *(_GAP + _width(table, place) for place in places)]
    heads = [[FIRST_HEADING], *(_heading(table, place) for place in places)]
    deepest = max(map(len, heads))
    # Headings of fewer lines stand at the bottom, above their numbers.
    lined = ["\n".join([""] * (deepest - len(head)) + head) for head in heads]
    yield _grid(widths, [[Text(head) for head in lined]])
    yield Text("─" * sum(widths))
    for block in part.blocks:
        yield Text(printable(block.title), style="italic")
        rows = [
            [_label(row), *map(_cell, (row.entries[place] for place in places), columns)]
            for row in block.rows
        ]
        yield _grid(widths, rows)


def _grid(widths: Sequence[int], rows: Sequence[Sequence[Text]]) -> Table:
    """Return rows in columns of fixed widths, so that the blocks stand below each other."""
    grid = Table.grid()
    for place, width in enumerate(widths):
        justify = "right" if place else "left"
        grid.add_column(justify=justify, width=width, min_width=width, no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    return grid


def _cell(entry: Entry, column: Column) -> Text:
    text = Text(shown(entry, column), style=_STYLE[entry.mark])
    # The blank and the interval are not marked with the number.
    limits = beside(entry, column)
    return Text.assemble(text, f" {limits}") if limits else text


def _label(row: TableRow) -> Text:
    return Text(printable(row.whole))


def _rows(table: ResultsTable) -> Iterator[TableRow]:
    return (row for part in table.parts for block in part.blocks for row in block.rows)


def _first_width(table: ResultsTable) -> int:
    return max(len(FIRST_HEADING), *(_label(row).cell_len for row in _rows(table)))


def _width(table: ResultsTable, place: int) -> int:
    return max(_cells_width(table, place), *map(len, _heading(table, place)))


def _heading(table: ResultsTable, place: int) -> list[str]:
    """Return the lines of a heading, no wider than the numbers below it or its longest word."""
    name = printable(table.columns[place].name)
    width = max(_cells_width(table, place), *map(len, name.split()))
    return textwrap.wrap(name, width, break_on_hyphens=False)


def _cells_width(table: ResultsTable, place: int) -> int:
    column = table.columns[place]
    return max(_cell(row.entries[place], column).cell_len for row in _rows(table))
