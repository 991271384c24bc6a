"""``otprune plot``: draw the figures of earlier runs."""

import logging
from enum import StrEnum
from typing import Annotated

import typer

from otprune_lmms.cli.common import fail, log, say_removed
from otprune_lmms.cli.options import Folders
from otprune_lmms.cli.stopping import ends_in_words

logger = logging.getLogger("otprune_lmms")


class Format(StrEnum):
    """File formats of figures."""

    PNG = "png"
    PDF = "pdf"
    SVG = "svg"


Formats = Annotated[
    list[Format] | None,
    typer.Option("--format", help="may be given several times (default: png)"),
]


@ends_in_words
def plot(folders: Folders, formats: Formats = None) -> None:
    """Draw the figures of earlier runs into their folders' figures/.

    Draws what the folder's data allow: curves and radars from the records, intervals and paired
    differences after `otprune sweep`, distances and kept patches after `otprune analyze`, latency
    after `otprune bench`. Says which figures were left out, and why. A report of other figures is
    removed.

    Example: otprune plot outputs/mini --format pdf
    """
    log(quiet=False)
    from otprune_lmms.cli.images import document_images
    from otprune_lmms.files import exclusive
    from otprune_lmms.reporting.figures import write_figures
    from otprune_lmms.reporting.figures.kept_image import write_kept_patches
    from otprune_lmms.results.kept_image import KEPT_IMAGE
    from otprune_lmms.results.stale import without_stale_report

    for folder in folders:
        try:
            images = document_images(folder)
            with exclusive(folder, make=False), without_stale_report(folder) as removed:
                if (folder / KEPT_IMAGE).is_file():
                    write_kept_patches(folder)
                written = write_figures(
                    folder, [one.value for one in formats or [Format.PNG]], images
                )
            say_removed(folder, removed, "`otprune report`")
        except (ValueError, OSError) as error:
            fail(error, 2)
        logger.info("%s: %s figures", folder, len(written))
