"""Tidy records of an experiment, and the tables made of them.

A table stands in blocks: for each model the unpruned row, then one block a budget, then what papers
print. `write_tables` makes all files of a results folder; the renderers draw a `Wide`.
"""

from otprune_lmms.reporting.tables.blocks import wide
from otprune_lmms.reporting.tables.gate import Verdict, gate
from otprune_lmms.reporting.tables.intervals import Intervals, read_intervals
from otprune_lmms.reporting.tables.layout import Wide
from otprune_lmms.reporting.tables.references import Anchor, references
from otprune_lmms.reporting.tables.render.csv import csv
from otprune_lmms.reporting.tables.render.html import html
from otprune_lmms.reporting.tables.render.latex import latex
from otprune_lmms.reporting.tables.render.markdown import markdown
from otprune_lmms.reporting.tables.render.terminal import terminal
from otprune_lmms.reporting.tables.write import PAGE, TABLE, write_tables
from otprune_lmms.results.manifest import MANIFEST, Manifest, read_manifest
from otprune_lmms.results.records import COLUMNS, RECORDS, frame, read_records

__all__ = [
    "COLUMNS",
    "MANIFEST",
    "PAGE",
    "RECORDS",
    "TABLE",
    "Anchor",
    "Intervals",
    "Manifest",
    "Verdict",
    "Wide",
    "csv",
    "frame",
    "gate",
    "html",
    "latex",
    "markdown",
    "read_intervals",
    "read_manifest",
    "read_records",
    "references",
    "terminal",
    "wide",
    "write_tables",
]
