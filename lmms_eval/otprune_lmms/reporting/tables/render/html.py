"""The table as a page of its own: no other file, every text escaped, columns that sort."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from otprune_lmms.reporting.escape import html as escape
from otprune_lmms.reporting.tables.layout import (
    DOUBT,
    FIRST_HEADING,
    Block,
    Column,
    Entry,
    ResultsTable,
    TablePart,
    TableRow,
    beside,
    interval_text,
    shown,
)

_HERE = Path(__file__).parent

_NOTHING_ELSE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What the page may load: what is in it."""


def html(table: ResultsTable, origin: Mapping[str, str]) -> str:
    """Return the table as a page.

    Args:
        table: what to show.
        origin: what made the numbers; stands at the head.
    """
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_ELSE}">',
            f"<title>{escape(table.title)}</title>",
            f"<style>\n{style()}</style>",
            "</head>",
            "<body>",
            f"<h1>{escape(table.title)}</h1>",
            '<dl class="origin">',
            *(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in origin.items()),
            "</dl>",
            fragment(table),
            f"<script>\n{script()}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def fragment(table: ResultsTable) -> str:
    """Return the tables and notes alone, for a page that has `style` and `script`."""
    lines = [line for part in table.parts for line in _part(table, part)]
    lines += ['<ul class="notes">', *(f"<li>{escape(note)}</li>" for note in table.notes), "</ul>"]
    if table.budgets is not None:
        lines += [f"<h2>{escape(table.budgets.title)}</h2>", fragment(table.budgets)]
    return "\n".join(lines)


def style() -> str:
    """Return the style sheet of the tables."""
    return (_HERE / "page.css").read_text(encoding="utf-8")


def script() -> str:
    """Return the script that sorts: every ``table.scores`` that is not ``paged``."""
    return (_HERE / "sort.js").read_text(encoding="utf-8")


def _part(table: ResultsTable, part: TablePart) -> Iterator[str]:
    yield '<div class="scroll">'
    yield '<table class="scores">'
    yield f"<caption>{escape(part.model)}</caption>"
    yield "<thead><tr>"
    yield _head(FIRST_HEADING, "ascending")
    for column in table.columns:
        low_first = column.kind in ("rank", "cost", "plain")
        yield _head(column.name, "ascending" if low_first else "descending")
    yield "</tr></thead>"
    for block in part.blocks:
        yield from _block(table, block)
    yield "</table>"
    yield "</div>"


def _head(name: str, first: str) -> str:
    # A line may end between words, not at the hyphen of one.
    words = " ".join(f"<span>{escape(word)}</span>" for word in name.split())
    button = f'<button type="button">{words}</button>'
    return f'<th scope="col" data-first="{first}">{button}</th>'


def _block(table: ResultsTable, block: Block) -> Iterator[str]:
    width = 1 + len(table.columns)
    yield f'<tbody class="{block.kind}">'
    title = escape(block.title)
    yield f'<tr class="title"><th scope="rowgroup" colspan="{width}">{title}</th></tr>'
    for row in block.rows:
        cells = "".join(
            _cell(entry, column) for entry, column in zip(row.entries, table.columns, strict=True)
        )
        yield f"<tr>{_name(row)}{cells}</tr>"
    yield "</tbody>"


def _name(row: TableRow) -> str:
    name = escape(row.whole)
    return f'<th scope="row" data-value="{name}" title="{escape(row.label)}">{name}</th>'


def _cell(entry: Entry, column: Column) -> str:
    text = escape(shown(entry, column, doubt=""))
    if entry.mark is not None:
        tag = {"best": "b", "second": "u"}[entry.mark]
        text = f"<{tag}>{text}</{tag}>"
    if entry.doubted and entry.value is not None:
        text += DOUBT
    limits = beside(entry, column)
    text += f' <span class="limits">{escape(limits)}</span>' if limits else ""
    value = "" if entry.value is None else repr(entry.value)
    title = escape(_title(entry, column))
    attributes = f' data-value="{value}"'
    attributes += f' title="{title}"' if title else ""
    attributes += ' class="doubted"' if entry.doubted else ""
    return f"<td{attributes}>{text}</td>"


def _title(entry: Entry, column: Column) -> str:
    """Return the tooltip of a number."""
    if entry.value is None:
        return ""
    limits = interval_text(entry, column)
    parts = [f"95 % interval {limits}"] if limits else []
    if entry.spread is not None:
        parts.append(f"standard deviation over seeds {entry.spread:.{column.digits}f}")
    if entry.doubted:
        parts.append("not to be trusted: the unpruned score is not where it should be")
    return "; ".join(parts)
