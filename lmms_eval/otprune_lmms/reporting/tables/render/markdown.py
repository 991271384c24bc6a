"""The table as a Markdown page (GitHub's), that opens with where the numbers come from."""

from collections.abc import Iterable, Mapping

from otprune_lmms.reporting.escape import markdown as escaped
from otprune_lmms.reporting.escape import markdown_code
from otprune_lmms.reporting.tables.layout import (
    FIRST_HEADING,
    Column,
    Entry,
    ResultsTable,
    TablePart,
    TableRow,
    beside,
    interval_text,
    shown,
)


def markdown(table: ResultsTable, origin: Mapping[str, str]) -> str:
    """Return the table as a page.

    Args:
        table: what to show.
        origin: what made the numbers; stands at the head.
    """
    lines = [f"# {escaped(table.title)}", ""]
    lines += [f"{escaped(name)}: {markdown_code(value)}  " for name, value in origin.items()]
    for part in table.parts:
        lines += _heading(table, part, "##") + _table(table, part)
    lines += ["", *(f"- {escaped(note)}" for note in table.notes)]
    if table.intervals:
        lines += ["", "## 95 % intervals"]
        for part in table.parts:
            lines += _heading(table, part, "###") + _interval_table(table, part)
    if table.budgets is not None:
        lines += ["", f"## {table.budgets.title}"]
        for part in table.budgets.parts:
            lines += _heading(table, part, "###") + _table(table.budgets, part)
        lines += ["", *(f"- {escaped(note)}" for note in table.budgets.notes)]
    return "\n".join([*lines, ""])


def _heading(table: ResultsTable, part: TablePart, level: str) -> list[str]:
    return ["", f"{level} {escaped(part.model)}"] if len(table.parts) > 1 else []


def _table(table: ResultsTable, part: TablePart) -> list[str]:
    lines = _head(table.columns)
    for block in part.blocks:
        lines.append(_line([f"**{escaped(block.title)}**", *[""] * len(table.columns)]))
        lines += [
            _row(row, (_cell(e, c) for e, c in zip(row.entries, table.columns, strict=True)))
            for row in block.rows
        ]
    return lines


def _interval_table(table: ResultsTable, part: TablePart) -> list[str]:
    have = [
        place
        for place in range(len(table.columns))
        if any(row.entries[place].low is not None for block in part.blocks for row in block.rows)
    ]
    columns = [table.columns[place] for place in have]
    lines = _head(columns)
    for row in (row for block in part.blocks for row in block.rows if block.kind != "published"):
        entries = [row.entries[place] for place in have]
        if any(entry.low is not None for entry in entries):
            lines.append(
                _row(row, (interval_text(e, c) for e, c in zip(entries, columns, strict=True)))
            )
    return lines


def _head(columns: Iterable[Column]) -> list[str]:
    names = [escaped(column.name) for column in columns]
    return ["", _line([FIRST_HEADING, *names]), "|---" + "|---:" * len(names) + "|"]


def _row(row: TableRow, cells: Iterable[str]) -> str:
    return _line([escaped(row.whole), *cells])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(entry: Entry, column: Column) -> str:
    text = shown(entry, column)
    if entry.mark == "best":
        text = f"**{text}**"
    if entry.mark == "second":
        # GitHub shows no <u>.
        text = f"<ins>{text}</ins>"
    return f"{text} {beside(entry, column)}".rstrip()
