"""The tables of a results folder: Markdown, CSV, LaTeX and HTML."""

from collections.abc import Sequence
from pathlib import Path

from otprune_lmms.files import write_text
from otprune_lmms.reporting.statistics.answers import QUANTITIES
from otprune_lmms.reporting.tables.blocks import make_table
from otprune_lmms.reporting.tables.budgets import read_quartiles
from otprune_lmms.reporting.tables.intervals import read_intervals
from otprune_lmms.reporting.tables.layout import ResultsTable
from otprune_lmms.reporting.tables.render.csv import csv
from otprune_lmms.reporting.tables.render.html import html
from otprune_lmms.reporting.tables.render.latex import latex
from otprune_lmms.reporting.tables.render.markdown import markdown
from otprune_lmms.results.kept_image import KEPT_PATCHES
from otprune_lmms.results.manifest import read_manifest
from otprune_lmms.results.records import RECORDS, Convention, read_records

PAGE, TABLE, TEX, WEB = "table.md", "table.csv", "table.tex", "table.html"
BUDGETS = "budgets.csv"


def answer_columns_of(folder: Path) -> list[str]:
    """Return the columns about the answers that a folder's table has, in their order."""
    path = folder / TABLE
    if not path.is_file():
        return []
    headings = path.read_text(encoding="utf-8").partition("\n")[0].split(",")
    named = {name.replace("_", " "): name for name in QUANTITIES}
    return [named[heading] for heading in headings if heading in named]


def write_tables(
    folder: Path, convention: Convention = "2ndm", answer_columns: Sequence[str] = ()
) -> ResultsTable:
    """Write the tables of a results folder, each whole or not at all; return the table.

    Reads ``records.csv`` and ``manifest.json``, and ``averages.csv``, ``intervals.csv`` and
    ``kept.csv`` and ``answers.csv`` where they are.

    Args:
        folder: of the results.
        convention: how multiply-adds are counted, see `otprune.cost`.
        answer_columns: columns about the answers, of `statistics.answers.QUANTITIES`.

    Raises:
        ValueError: the folder has no records or manifest, or not of this format.
        OutputError: a file cannot be written (disk full, read-only).
    """
    manifest = read_manifest(folder)
    table = make_table(
        read_records(folder / RECORDS),
        manifest,
        intervals=read_intervals(folder),
        quartiles=read_quartiles(folder),
        convention=convention,
        answer_columns=answer_columns,
    )
    page = markdown(table, manifest.origin)
    if (folder / KEPT_PATCHES).is_file():
        page += f"\n![kept patches]({KEPT_PATCHES})\n"
    write_text(folder / PAGE, page)
    write_text(folder / TABLE, csv(table))
    if table.budgets is not None:
        write_text(folder / BUDGETS, csv(table.budgets))
    write_text(folder / TEX, latex(table, manifest.origin))
    write_text(folder / WEB, html(table, manifest.origin))
    return table
