"""The tables of a results folder.

A table stands in blocks: for each model the unpruned row, then one block for each budget, then what
papers print. `write_tables` makes all files of a results folder; the renderers draw a
`ResultsTable`.
"""

from otprune_lmms.reporting.tables.blocks import make_table
from otprune_lmms.reporting.tables.intervals import Intervals, read_intervals
from otprune_lmms.reporting.tables.layout import ResultsTable
from otprune_lmms.reporting.tables.references import (
    Reference,
    ReferenceCheck,
    check_references,
    references_of,
)
from otprune_lmms.reporting.tables.render.csv import csv
from otprune_lmms.reporting.tables.render.html import html
from otprune_lmms.reporting.tables.render.latex import latex
from otprune_lmms.reporting.tables.render.markdown import markdown
from otprune_lmms.reporting.tables.render.terminal import terminal
from otprune_lmms.reporting.tables.write import PAGE, TABLE, answer_columns_of, write_tables

__all__ = [
    "PAGE",
    "TABLE",
    "Intervals",
    "Reference",
    "ReferenceCheck",
    "ResultsTable",
    "answer_columns_of",
    "check_references",
    "csv",
    "html",
    "latex",
    "make_table",
    "markdown",
    "read_intervals",
    "references_of",
    "terminal",
    "write_tables",
]
