"""Makes all pages and figures of a results folder."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from otprune_lmms.cli.table import show

logger = logging.getLogger("otprune_lmms")


def finish(folder: Path, *, report: bool = True) -> None:
    """Make the pages of a results folder, and print its table.

    Args:
        folder: a results folder with records and samples, and diagnostics if they were measured.
        report: whether to make analysis, figures and HTML report too.

    Raises:
        ValueError: a folder without records or samples, or of another format.
    """
    from otprune_lmms.reporting.statistics import write_statistics
    from otprune_lmms.reporting.tables import write_tables
    from otprune_lmms.results.diagnostics import DIAGNOSTICS
    from otprune_lmms.results.kept_image import KEPT_IMAGE

    _timed("statistics", lambda: write_statistics(folder))
    if (folder / KEPT_IMAGE).is_file():
        from otprune_lmms.reporting.figures.kept_image import write_kept_patches

        _timed("kept patches", lambda: write_kept_patches(folder))
    show(_timed("tables", lambda: write_tables(folder)))
    if not report:
        return
    if (folder / DIAGNOSTICS).is_file():
        from otprune_lmms.reporting.analysis.write import write_analysis

        _timed("analysis", lambda: write_analysis(folder))
    from otprune_lmms.cli.images import document_images
    from otprune_lmms.reporting.figures import write_figures
    from otprune_lmms.reporting.report import write_report

    images = document_images(folder)
    _timed("figures", lambda: write_figures(folder, images=images))
    _timed("report", lambda: write_report(folder, images, images.references))


def _timed(what: str, work: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    found = work()
    logger.info("%s: %.1f seconds", what, time.perf_counter() - begin)
    return found
