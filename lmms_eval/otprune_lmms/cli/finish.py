"""What is made of finished answers: statistics, tables, analysis, figures, report."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from otprune_lmms.cli.show import show
from otprune_lmms.experiments.config import Experiment

logger = logging.getLogger("otprune_lmms")


def finish(
    experiment: Experiment,
    config: Path,
    folder: Path,
    *,
    analysis: bool = True,
    images: int = 24,
    report: bool = True,
    progress: bool = True,
) -> None:
    """Make all that a results folder can hold of its records and samples, and print its table.

    Args:
        experiment: what was run.
        config: folder of its file.
        folder: its results.
        analysis: whether to load the models once more and measure the kept tokens.
        images: documents of each task whose images are measured.
        report: whether to draw figures and write the HTML page.
        progress: whether to show how far it is.

    Raises:
        ValueError: a folder without records or samples, or of another format.
    """
    from otprune_lmms.reporting.statistics import write_statistics
    from otprune_lmms.reporting.tables import write_tables

    _timed("statistics", lambda: write_statistics(folder))
    show(_timed("tables", lambda: write_tables(folder)))
    if analysis:
        _timed("analysis", lambda: _analyse(experiment, config, folder, images, progress))
    if report:
        from otprune_lmms.reporting.figures import write_figures
        from otprune_lmms.reporting.report import write_report

        _timed("figures", lambda: write_figures(folder))
        _timed("report", lambda: write_report(folder))
    logger.info("%s: finished", folder)


def _timed(what: str, work: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    found = work()
    logger.info("%s: %.1f seconds", what, time.perf_counter() - begin)
    return found


def _analyse(
    experiment: Experiment, config: Path, folder: Path, images: int, progress: bool
) -> None:
    from otprune_lmms.experiments.diagnostics.diagnose import measurable
    from otprune_lmms.experiments.diagnostics.experiment import diagnose_experiment
    from otprune_lmms.reporting.analysis.write import write_analysis
    from otprune_lmms.results.diagnostics import write_diagnostics

    configs = [config for config in experiment.pruning.configs() if config.method is not None]
    if not any(map(measurable, configs)):
        logger.info("analysis: no setting prunes before the language model")
        return
    frame = diagnose_experiment(experiment, config, folder, images=images, progress=progress)
    write_diagnostics(frame, folder)
    write_analysis(folder)
