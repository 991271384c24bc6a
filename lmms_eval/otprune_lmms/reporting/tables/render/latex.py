"""The table as LaTeX, in the manner of the papers: booktabs, a block for each budget."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from otprune_lmms.reporting.escape import flat
from otprune_lmms.reporting.escape import latex as escaped
from otprune_lmms.reporting.tables.layout import (
    DOUBT,
    Block,
    Column,
    Entry,
    ResultsTable,
    TablePart,
    TableRow,
    beside,
    shown,
)

_ROWS = 32
"""Rows of a float, titles of blocks included: with the notes below it is no higher than a page."""

_WIDE = 9
"""Columns from which a table is scaled to the width of the text; a narrower one would grow."""


def latex(table: ResultsTable, origin: Mapping[str, str]) -> str:
    r"""Return one ``table*`` a model, for ``\input``; needs booktabs and graphicx.

    A table of many rows is several floats, each with the headings, since none may be higher than a
    page. Rows are named without their budget, which is in the title of their block. The origin is
    in comments, the notes are below the last float.
    """
    lines = [f"% {flat(name)}: {flat(value)}" for name, value in origin.items()]
    lines += [r"% needs \usepackage{booktabs,graphicx}"]
    for part in table.parts:
        floats = list(_floats(part.blocks))
        for number, blocks in enumerate(floats, 1):
            lines += _float(table, part, blocks, (number, len(floats)))
    return "\n".join([*lines, ""])


def _floats(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Yield the blocks of each float; a block that is too long for one goes on in the next."""
    some: list[Block] = []
    left = _ROWS
    for block in blocks:
        if some and left < 1 + min(len(block.rows), _ROWS // 2):
            yield some
            some, left = [], _ROWS
        rows = list(block.rows)
        while rows:
            taken, rows = rows[: left - 1], rows[left - 1 :]
            some.append(replace(block, rows=tuple(taken)))
            left -= 1 + len(taken)
            if rows:
                yield some
                some, left = [], _ROWS
    if some:
        yield some


def _float(
    table: ResultsTable, part: TablePart, blocks: Sequence[Block], place: tuple[int, int]
) -> list[str]:
    """Return the lines of a float.

    Args:
        table: the whole table.
        part: the model's.
        blocks: of the float.
        place: number of the float, and how many there are.
    """
    columns = 1 + len(table.columns)
    named = part.model in table.title
    caption = table.title if named else f"{part.model}: {table.title}"
    number, count = place
    caption += f" (part {number} of {count})" if count > 1 else ""
    scaled = columns >= _WIDE
    lines = [
        "",
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        *([r"\resizebox{\textwidth}{!}{%"] if scaled else []),
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        _line(["Method", *(escaped(column.name) for column in table.columns)]),
    ]
    for block in blocks:
        lines += [
            r"\midrule",
            _line([rf"\multicolumn{{{columns}}}{{c}}{{{escaped(block.title)}}}"]),
            r"\midrule",
            *(_row(table, block, row) for row in block.rows),
        ]
    lines += [r"\bottomrule", r"\end{tabular}" + ("}" if scaled else "")]
    if number == count:
        lines += [r"\par\medskip", r"\begin{minipage}{\textwidth}\footnotesize"]
        lines += [escaped(note) + r".\par" for note in table.notes]
        lines += [r"\end{minipage}"]
    return [*lines, r"\end{table*}"]


def _row(table: ResultsTable, block: Block, row: TableRow) -> str:
    name = row.name if block.kind == "retain" else row.whole
    cells = (_cell(e, c) for e, c in zip(row.entries, table.columns, strict=True))
    return _line([escaped(name), *cells])


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(entry: Entry, column: Column) -> str:
    text = escaped(shown(entry, column, doubt=""))
    if entry.mark == "best":
        text = rf"\textbf{{{text}}}"
    if entry.mark == "second":
        text = rf"\underline{{{text}}}"
    text += escaped(DOUBT) if entry.doubted and entry.value is not None else ""
    limits = beside(entry, column)
    # A bracket after \\ would be its argument; inside a cell it is text.
    return rf"{text} {{\scriptsize {escaped(limits)}}}" if limits else text
