"""The table as LaTeX, in the manner of the papers: booktabs, a block for each budget."""

from collections.abc import Mapping

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


def latex(table: ResultsTable, origin: Mapping[str, str]) -> str:
    r"""Return one ``table*`` a model, for ``\input``; needs booktabs and graphicx.

    Rows are named without their budget, which is in the title of their block. The origin is in
    comments, the notes are below the table.
    """
    lines = [f"% {flat(name)}: {flat(value)}" for name, value in origin.items()]
    lines += [r"% needs \usepackage{booktabs,graphicx}"]
    for part in table.parts:
        lines += _part(table, part)
    return "\n".join([*lines, ""])


def _part(table: ResultsTable, part: TablePart) -> list[str]:
    width = 1 + len(table.columns)
    named = part.model in table.title
    caption = escaped(table.title if named else f"{part.model}: {table.title}")
    lines = [
        "",
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{caption}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        _line(["Method", *(escaped(column.name) for column in table.columns)]),
    ]
    for block in part.blocks:
        lines += [
            r"\midrule",
            _line([rf"\multicolumn{{{width}}}{{c}}{{{escaped(block.title)}}}"]),
            r"\midrule",
            *(_row(table, block, row) for row in block.rows),
        ]
    lines += [r"\bottomrule", r"\end{tabular}}", r"\par\medskip"]
    lines += [r"\begin{minipage}{\textwidth}\footnotesize"]
    lines += [escaped(note) + r".\par" for note in table.notes]
    return [*lines, r"\end{minipage}", r"\end{table*}"]


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
