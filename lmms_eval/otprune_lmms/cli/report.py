"""``otprune report``: write the page of earlier runs."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from otprune_lmms.cli.common import fail, log
from otprune_lmms.cli.options import Folders, existing_folder
from otprune_lmms.cli.stopping import ends_in_words

logger = logging.getLogger("otprune_lmms")

PerTask = Annotated[int, typer.Option(min=1, help="samples of each task, at most")]
Tasks = Annotated[
    Path | None,
    typer.Option(
        parser=existing_folder,
        metavar="FOLDER",
        help="folder of the task files, where the suite is one of the experiment's own",
    ),
]


@ends_in_words
def report(folders: Folders, per_task: PerTask = 12, tasks: Tasks = None) -> None:
    """Write one HTML page for each results folder: report.html, one file that needs no network.

    Tables that sort, statistics, the folder's figures (draw them first: `otprune plot`) and a
    browser of samples: image, question, reference, the answer of every setting, the patches that it
    kept. Samples on which the settings disagree come first.

    Example: otprune report outputs/mini
    """
    log(quiet=False)
    from otprune_lmms.cli.images import document_images
    from otprune_lmms.files import exclusive
    from otprune_lmms.reporting.report import write_report

    if tasks is not None and not tasks.is_dir():
        fail(f"--tasks must be a folder of task files: no folder {tasks}", 2)
    for folder in folders:
        try:
            images = document_images(folder, tasks)
            with exclusive(folder, make=False):
                page = write_report(folder, images, images.references, per_task)
        except (ValueError, OSError) as error:
            fail(error, 2)
        logger.info("%s: %.1f MB", page, page.stat().st_size / 1e6)
