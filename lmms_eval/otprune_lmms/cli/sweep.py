"""``otprune sweep``: several experiments in one pass, on one machine or in shards on many."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import transformers
import typer

from otprune_lmms.cli.common import fail, log
from otprune_lmms.cli.finish import finish
from otprune_lmms.cli.run import (
    BatchSize,
    Configs,
    Limit,
    Quiet,
    Strict,
    WithoutJava,
    eval_time,
    override,
    read,
    run_one,
)
from otprune_lmms.experiments.config import ConfigError, Experiment
from otprune_lmms.experiments.plan import Source, check_names
from otprune_lmms.experiments.shard import By, Shard

logger = logging.getLogger("otprune_lmms")

JOURNAL = Path("logs") / "sweep"
"""Where sweeps keep their answers: found by content, so that all sweeps may share them."""

ShardOption = Annotated[
    str | None,
    typer.Option(
        metavar="i/N",
        help="only answer part i of N, counted from 1; tables come from a run without this",
    ),
]
ShardBy = Annotated[By, typer.Option(help="what the parts are made of")]
ResultsDir = Annotated[
    Path | None, typer.Option(help="folder of the tables' folders; default results")
]
SweepJournal = Annotated[
    Path | None,
    typer.Option(help=f"folder of finished answers, of all experiments; default {JOURNAL}"),
]
Report = Annotated[
    bool,
    typer.Option(help="statistics, figures, analysis and report beside records and tables"),
]


def sweep(
    configs: Configs,
    shard: ShardOption = None,
    shard_by: ShardBy = "documents",
    output_dir: ResultsDir = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    journal: SweepJournal = None,
    without_java: WithoutJava = False,
    strict: Strict = False,
    report: Report = True,
    quiet: Quiet = False,
) -> None:
    """Run experiments in one pass, and make their tables, statistics, figures and reports.

    What experiments share is done once: a model loaded, an image encoded, ranked and asked about
    under one setting. Answers of all of them are in one journal, so experiments and settings can be
    added later without doing others again. With --shard i/N only part i is answered: start all N
    parts at once or one after another, on one machine or on many that share the journal's folder;
    the same command without --shard then makes the tables.
    """
    log(quiet)
    transformers.utils.logging.disable_progress_bar()
    experiments = [override(e, limit, batch_size, without_java, strict) for e in read(configs)]
    sources = [(one, path.parent) for one, path in zip(experiments, configs, strict=True)]
    part = _shard(sources, shard, shard_by)
    folder = journal or JOURNAL
    if part is not None or len(experiments) > 1:
        _answer(sources, folder, part, quiet)
    if part is not None:
        return
    # A trial run must not overwrite the results of a whole one.
    results = output_dir or (folder / f"results-limit{limit}" if limit else Path("results"))
    for path, experiment in zip(configs, experiments, strict=True):
        output = results / experiment.name
        if run_one(path, experiment, folder, output, quiet) and report:
            _finish(path, experiment, output, quiet)


def _finish(path: Path, experiment: Experiment, output: Path, quiet: bool) -> None:
    try:
        finish(experiment, path.parent, output, progress=not quiet)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        logger.debug("the whole story", exc_info=True)
        fail(f"{path}: {error}", 1)


def _shard(sources: Sequence[Source], text: str | None, by: By) -> Shard | None:
    """Return the part that is asked for; end with code 2 where it or the sweep cannot be."""
    try:
        check_names(sources)
        return None if text is None else Shard.parse(text, by)
    except (ConfigError, ValueError) as error:
        fail(error, 2)


def _answer(sources: Sequence[Source], journal: Path, shard: Shard | None, quiet: bool) -> None:
    """Answer everything, or a shard; end with code 1 where that fails."""
    from otprune_lmms.experiments.answering import answer

    part = "" if shard is None else f"shard {shard} by {shard.by} of "
    names = ", ".join(experiment.name for experiment, _ in sources)
    logger.info("answering %s%s; answers in %s", part, names, journal)
    begin = time.perf_counter()
    try:
        counts = answer(sources, journal, shard=shard, progress=not quiet, eval_time=eval_time())
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        logger.debug("the whole story", exc_info=True)
        fail(error, 1)
    for model, count in counts.items():
        logger.info(
            "%s: %s answers new, %s found, %s images encoded, %s documents left out",
            *(model, count["generated"], count["reused"], count["encoded"], count["failed"]),
        )
    logger.info("%s seconds", round(time.perf_counter() - begin))
