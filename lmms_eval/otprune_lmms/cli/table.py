"""``otprune table``: make tables anew."""

from pathlib import Path
from typing import Annotated

import typer

from otprune_lmms.cli.common import fail, log
from otprune_lmms.cli.show import show

Folders = Annotated[list[Path], typer.Argument(help="results folders of earlier runs")]


def table(folders: Folders) -> None:
    """Make the tables of earlier runs anew from their records."""
    log(quiet=False)
    from otprune_lmms.reporting.tables import write_tables

    for folder in folders:
        try:
            show(write_tables(folder))
        except (ValueError, OSError) as error:
            fail(error, 2)
