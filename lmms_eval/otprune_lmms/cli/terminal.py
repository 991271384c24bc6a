"""What the commands print: lines and tables, in which nothing is markup and no number is cut."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from otprune_lmms.terminal_text import printable

_GAP = 2
"""Blanks between columns."""


def console(*, stderr: bool = False) -> Console:
    """Return the console of a command: it reads no markup and breaks no line of text."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def say(text: object, *, stderr: bool = False) -> None:
    """Print a line; control characters in it are written out."""
    console(stderr=stderr).print(printable(str(text)))


@dataclass(frozen=True)
class Listing:
    """A table for a terminal.

    Attributes:
        heads: headings.
        rows: as many texts each.
        names: how many of the columns are names: on the left, repeated where the table is folded.
        title: above it; "" for none.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    title: str = ""

    def show(self) -> None:
        """Print it; a terminal that is too narrow gets the columns in several turns."""
        out = console()
        # A file or a pipe has no width.
        for line in self.lines(out.width if out.is_terminal else None):
            out.print(Text(line))

    def lines(self, width: int | None = None) -> Iterator[str]:
        """Yield its lines, none wider than the names and the widest column need.

        Args:
            width: columns of the terminal; None for no limit.
        """
        rows = [[printable(cell) for cell in row] for row in self.rows]
        columns = [list(cells) for cells in zip(*rows, strict=True)] or [[] for _ in self.heads]
        heads = [_heading(*one) for one in zip(self.heads, columns, strict=True)]
        widths = [max(map(cell_len, [*h, *c])) for h, c in zip(heads, columns, strict=True)]
        if self.title:
            yield from textwrap.wrap(printable(self.title), width or 10**6)
        for turn in self._turns(widths, width):
            deepest = max(len(heads[place]) for place in turn)
            yield ""
            for depth in range(-deepest, 0):
                # Headings of fewer lines stand at the bottom, above their numbers.
                line = [heads[p][depth] if -depth <= len(heads[p]) else "" for p in turn]
                yield self._line(line, turn, widths)
            yield "-" * (sum(widths[place] + _GAP for place in turn) - _GAP)
            for row in rows:
                yield self._line([row[place] for place in turn], turn, widths)

    def _turns(self, widths: Sequence[int], width: int | None) -> list[list[int]]:
        """Return which columns are shown in each turn: as many as fit, at least one."""
        names = list(range(self.names))
        turns, used = [list(names)], sum(widths[place] + _GAP for place in names)
        first = used
        for place in range(self.names, len(widths)):
            if width is not None and len(turns[-1]) > self.names and used + widths[place] > width:
                turns.append(list(names))
                used = first
            turns[-1].append(place)
            used += widths[place] + _GAP
        return turns

    def _line(self, cells: Sequence[str], turn: Sequence[int], widths: Sequence[int]) -> str:
        parts = []
        for cell, place in zip(cells, turn, strict=True):
            blanks = " " * (widths[place] - cell_len(cell))
            parts.append(cell + blanks if place < self.names else blanks + cell)
        return (" " * _GAP).join(parts).rstrip()


def _heading(name: str, cells: Sequence[str]) -> list[str]:
    """Return the lines of a heading, no wider than the cells below it or its longest word."""
    width = max([*map(cell_len, cells), *map(len, name.split()), 1])
    return textwrap.wrap(name, width, break_on_hyphens=False) or [""]
