"""Best and second best of a block, as the papers print them."""

from collections.abc import Sequence
from dataclasses import replace

from otprune_lmms.reporting.tables.layout import Column, Entry, Mark, Row


def marked(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[Row, ...]:
    """Return the rows of a block with their best and second best numbers marked.

    Numbers that are shown alike are marked alike; the second best is the next number shown. Nothing
    is marked where all are alike, or only one row has a number. Tokens and costs are never marked.
    """
    entries = [list(row.entries) for row in rows]
    for place, column in enumerate(columns):
        if column.kind in ("tokens", "cost"):
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
