"""``otprune run`` and ``otprune sweep``: experiments in one pass, here or on many machines.

`run` is `sweep` without the parts that take minutes on top: analysis, figures and the report.
"""

import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otprune_lmms.cli.analyze import Images, WithoutExact
from otprune_lmms.cli.common import command_line, fail, log, say_removed
from otprune_lmms.cli.experiments import Changes, check_devices, eval_time, read_sources
from otprune_lmms.cli.finish import finish
from otprune_lmms.cli.options import (
    JOURNAL,
    RESULTS,
    BatchSize,
    Calibration,
    Configs,
    JournalDir,
    Limit,
    OutputDir,
    Quiet,
    ShardBy,
    ShardOption,
    Strict,
    VisualStore,
    VisualStoreGib,
    WithoutJava,
)
from otprune_lmms.cli.stopping import resumable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otprune_lmms.experiments.answering import AnswerOptions
    from otprune_lmms.experiments.diagnostics.diagnose import DiagnosticsOptions
    from otprune_lmms.experiments.plan import Source, TaskKey, TaskSize
    from otprune_lmms.experiments.shard import Shard
    from otprune_lmms.experiments.stopwatch import Stopwatch

logger = logging.getLogger("otprune_lmms")

_OF_A_SWEEP = ("analysis.md", "figures", "report.html")
"""Pages that a run does not make."""

ReportOption = Annotated[
    bool, typer.Option(help="analysis, figures and report beside statistics and tables")
]


def run(
    configs: Configs,
    output_dir: OutputDir = RESULTS,
    limit: Limit = None,
    batch_size: BatchSize = None,
    journal: JournalDir = JOURNAL,
    without_java: WithoutJava = False,
    strict: Strict = False,
    calibration: Calibration = False,
    visual_store: VisualStore = None,
    visual_store_gib: VisualStoreGib = 20.0,
    quiet: Quiet = False,
) -> None:
    """Run experiments and print their tables: a sweep without analysis, figures and report.

    What the journal has is not done again: an interrupted run goes on where it stopped, and a
    finished one ends in seconds. Under accelerate or torchrun each process answers its share.

    Example: otprune run mini --limit 8
    """
    log(quiet)
    with resumable(journal) as watch:
        again = partial(_key, configs, limit)
        key = again()
        sources = read_sources(configs, Changes(limit, batch_size, without_java, strict))
        check_devices(sources)
        options = _options(journal, None, quiet, watch, _noted(sources, journal, key, again))
        options = _storing(options, visual_store, visual_store_gib)
        options = replace(options, calibration=calibration)
        _run(sources, options, _results(output_dir, limit), None)


def sweep(
    configs: Configs,
    shard: ShardOption = None,
    shard_by: ShardBy = "documents",
    output_dir: OutputDir = RESULTS,
    limit: Limit = None,
    batch_size: BatchSize = None,
    journal: JournalDir = JOURNAL,
    without_java: WithoutJava = False,
    strict: Strict = False,
    calibration: Calibration = False,
    report: ReportOption = True,
    images: Images = 24,
    without_exact: WithoutExact = False,
    visual_store: VisualStore = None,
    visual_store_gib: VisualStoreGib = 20.0,
    quiet: Quiet = False,
) -> None:
    """Run experiments in one pass, and make their tables, statistics, figures and reports.

    What experiments share is done once: a model loaded, an image encoded, ranked and asked about
    under one setting. Answers of all of them are in one journal, so experiments and settings can be
    added later without doing others again. With --shard i/N only part i is answered: start all N
    parts at once or one after another, on one machine or on many that share the journal's folder;
    the same command without --shard then makes the tables.

    What takes longest of the rest is the exact distance of kept tokens, some tenths of a second for
    each image and setting; the log says how long in all. --without-exact and a smaller --images
    make it fast.

    Example: otprune sweep configs/mini.yaml configs/mini/gamma.yaml --without-exact
    """
    log(quiet)
    with resumable(journal) as watch:
        again = partial(_key, configs, limit)
        key = again()
        sources = read_sources(configs, Changes(limit, batch_size, without_java, strict))
        check_devices(sources)
        part = None if shard is None else _shard(shard, shard_by)
        options = _options(journal, part, quiet, watch, _noted(sources, journal, key, again))
        options = _storing(options, visual_store, visual_store_gib)
        options = replace(options, calibration=calibration)
        if part is not None:
            _answer_shard(sources, options, part)
        else:
            measured = _measured(images, without_exact) if report else None
            _run(sources, options, _results(output_dir, limit), measured)


def _results(output_dir: Path, limit: int | None) -> Path:
    """Return the folder of results folders: a trial run does not overwrite a whole one's."""
    return output_dir / f"limit{limit}" if limit else output_dir


def _shard(text: str, by: ShardBy) -> "Shard":
    from otprune_lmms.experiments.shard import Shard

    try:
        return Shard.parse(text, by)
    except ValueError as error:
        fail(error, 2)


def _key(configs: "Sequence[Path]", limit: int | None) -> str | None:
    from otprune_lmms.cluster.remembered import key_of_experiments

    return key_of_experiments(configs, limit)


def _noted(
    sources: "Sequence[Source]",
    journal: Path,
    key: str | None,
    again: "Callable[[], str | None]",
) -> "Callable[[Mapping[TaskKey, TaskSize]], None]":
    """Return a function that keeps what `otprune status` needs, once all tasks are loaded."""

    def loaded(sizes: "Mapping[TaskKey, TaskSize]") -> None:
        from otprune_lmms.cluster.planned import remember

        remember(sources, sizes, journal, key, again)

    return loaded


def _options(
    journal: Path,
    shard: "Shard | None",
    quiet: bool,
    watch: "Stopwatch",
    loaded: "Callable[[Mapping[TaskKey, TaskSize]], None]",
) -> "AnswerOptions":
    import transformers

    from otprune_lmms.experiments.answering import AnswerOptions

    transformers.utils.logging.disable_progress_bar()
    return AnswerOptions(journal, shard, not quiet, eval_time(), watch, loaded=loaded)


def _storing(options: "AnswerOptions", folder: Path | None, gib: float) -> "AnswerOptions":
    """Return options with a folder of visual tokens; exit with code 1 if it cannot be written."""
    if folder is None:
        return options
    from otprune_lmms.engine import VisualFolder
    from otprune_lmms.files import check_writable

    try:
        check_writable(folder)
    except OSError as error:
        fail(error, 1)
    return replace(options, visual=VisualFolder(folder, gib))


def _measured(images: int, without_exact: bool) -> "DiagnosticsOptions":
    from otprune_lmms.experiments.diagnostics.diagnose import DiagnosticsOptions

    return DiagnosticsOptions(images or None, False if without_exact else None)


def _answer_shard(sources: "Sequence[Source]", options: "AnswerOptions", shard: "Shard") -> None:
    """Answer a shard; end with code 1 where that fails."""
    from otprune_lmms.experiments.run import answer_shard

    names = ", ".join(experiment.name for experiment, _ in sources)
    logger.info(
        "answering shard %s by %s of %s; answers in %s", shard, shard.by, names, options.journal
    )
    begin = time.perf_counter()
    try:
        done = answer_shard(sources, options)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        logger.debug("the whole story", exc_info=True)
        fail(error, 1)
    for model, count in done.counts.items():
        logger.info(
            "%s: %s answers new, %s found, %s images encoded, %s from the visual store, "
            "%s documents left out",
            *(model, count["generated"], count["reused"], count["encoded"], count["stored"]),
            count["failed"],
        )
    logger.info("%s seconds", round(time.perf_counter() - begin))


def _run(
    sources: "Sequence[Source]",
    options: "AnswerOptions",
    results: Path,
    measured: "DiagnosticsOptions | None",
) -> None:
    """Answer, score, write and report; end with code 1 where that fails."""
    from otprune_lmms.experiments.folder import write_results
    from otprune_lmms.experiments.run import run_experiments
    from otprune_lmms.files import exclusive

    begin = time.perf_counter()
    folders = [results / experiment.name for experiment, _ in sources]
    for (experiment, _), folder in zip(sources, folders, strict=True):
        logger.info(
            "%s: %s models, %s settings, %s tasks; answers in %s, results in %s",
            experiment.name,
            len(experiment.models),
            len(experiment.pruning.configs()),
            *(len(experiment.task_limits()), options.journal, folder),
        )
    report = measured is not None
    try:
        outcomes = run_experiments(sources, options, measured, folders)
        if outcomes is None:
            return
        with options.watch.timed("write results"):
            for (experiment, _), outcome, folder in zip(sources, outcomes, folders, strict=True):
                spent = time.perf_counter() - begin
                with exclusive(folder):
                    removed = write_results(experiment, outcome, folder, command_line(), spent)
                if not report:
                    gone = [one for one in removed if one in _OF_A_SWEEP]
                    say_removed(folder, gone, "`otprune sweep`")
        with options.watch.timed("make pages"):
            for folder in folders:
                with exclusive(folder):
                    finish(folder, report=report)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        logger.debug("the whole story", exc_info=True)
        names = ", ".join(experiment.name for experiment, _ in sources)
        fail(f"{names}: {error}", 1)
    page = "report.html" if report else "table.md"
    pages = ", ".join(str(folder / page) for folder in folders)
    logger.info("%s seconds; open %s", round(time.perf_counter() - begin), pages)
