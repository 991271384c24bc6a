"""``otprune table``: make tables anew; and how every command prints a table."""

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from otprune_lmms.cli.common import fail, log, say_removed
from otprune_lmms.cli.options import Folders
from otprune_lmms.cli.stopping import ends_in_words
from otprune_lmms.cli.terminal import console, say

logger = logging.getLogger("otprune_lmms")

if TYPE_CHECKING:
    from otprune_lmms.reporting.tables import ResultsTable


@ends_in_words
def table(
    folders: Folders,
    answers: Annotated[
        list[str] | None,
        typer.Option(
            "--answers",
            metavar="QUANTITY",
            help="a column about the answers: agreement, yes_bias, empty, unfinished, hard,"
            " repeated; of a run with --calibration also ece, ece_by_chance, overconfidence, brier;"
            " several times for several",
        ),
    ] = None,
) -> None:
    """Make the tables of earlier runs anew from their records.

    Example: otprune table outputs/mini --answers agreement --answers yes_bias
    """
    log(quiet=False)
    from otprune_lmms.files import exclusive
    from otprune_lmms.reporting.tables import write_tables
    from otprune_lmms.results.stale import without_stale_report

    for folder in folders:
        try:
            with exclusive(folder, make=False), without_stale_report(folder) as removed:
                made = write_tables(folder, answer_columns=answers or ())
            show(made)
            logger.info("%s: table.md, .csv, .tex, .html", folder)
            say_removed(folder, removed, "`otprune report`")
        except (ValueError, OSError) as error:
            fail(error, 2)


def show(table: "ResultsTable") -> None:
    """Print a table whole: a terminal that is too narrow gets its columns in several turns."""
    from rich.console import Console

    from otprune_lmms.reporting.tables import terminal

    out, drawn = console(), terminal(table)
    needed = Console(width=1000).measure(drawn)
    # A file or a pipe has no width, and a number is never cut.
    least = needed.minimum if out.is_terminal else needed.maximum
    out.width = max(out.width, least)
    out.print(drawn, soft_wrap=False)
    for note in table.notes:
        say(note)
    if table.budgets is not None:
        say("")
        show(table.budgets)
