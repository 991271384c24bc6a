"""``otprune run``: run experiments and print their tables."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import transformers
import typer

from otprune_lmms.cli.common import command_line, fail, log
from otprune_lmms.cli.show import show
from otprune_lmms.environment import VARIABLES, SettingsError, read_environment
from otprune_lmms.experiments.config import ConfigError, Experiment, load_experiment
from otprune_lmms.launch import check_installation

logger = logging.getLogger("otprune_lmms")

Configs = Annotated[list[Path], typer.Argument(help="experiment files, as configs/mini.yaml")]
OutputDir = Annotated[
    Path | None, typer.Option(help="folder of the tables; default results/<name>")
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="documents of each task; for trying things out")
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="prompts at once, instead of the experiment's")
]
JournalDir = Annotated[
    Path | None, typer.Option(help="folder of finished answers; default logs/<name>")
]
WithoutJava = Annotated[
    bool, typer.Option("--without-java", help="leave caption metrics out where Java is missing")
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="end at the first document with a broken image; else it is left out"
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]


def run(
    configs: Configs,
    output_dir: OutputDir = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    journal: JournalDir = None,
    without_java: WithoutJava = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Run experiments and print their tables.

    What the journal has is not done again: an interrupted run goes on where it stopped, and a
    finished one ends in seconds. Under accelerate or torchrun each process answers its share.
    """
    log(quiet)
    experiments = [override(e, limit, batch_size, without_java, strict) for e in read(configs)]
    if len(experiments) > 1 and (output_dir or journal):
        fail("--output-dir and --journal go with one experiment", 2)
    for path, experiment in zip(configs, experiments, strict=True):
        folder = journal or Path("logs") / experiment.name
        # A trial run must not overwrite the results of a whole one.
        trial = folder / f"results-limit{limit}" if limit else Path("results") / experiment.name
        run_one(path, experiment, folder, output_dir or trial, quiet)


def read(configs: Sequence[Path]) -> list[Experiment]:
    """Return the experiments of some files; end with code 2 and a sentence where one cannot be."""
    try:
        check_installation()
        environment = read_environment()
        loaded = [load_experiment(path) for path in configs]
    except (ConfigError, SettingsError, RuntimeError) as error:
        fail(error, 2)
    if environment.rank:
        logger.setLevel(logging.WARNING)
    elif environment.settings():
        names = ", ".join(VARIABLES[name] for name in environment.settings())
        logger.warning("%s in the environment: not used, an experiment is its file", names)
    return loaded


def eval_time() -> bool:
    """Return whether EVAL_TIME asks for each answer's times, the one variable a run heeds."""
    return bool(read_environment().eval_time)


def override(
    experiment: Experiment,
    limit: int | None,
    batch_size: int | None,
    without_java: bool,
    strict: bool = False,
) -> Experiment:
    """Return the experiment with what the command line says instead."""
    changes: dict[str, object] = {}
    if limit is not None:
        tasks = [task.model_copy(update={"limit": None}) for task in experiment.tasks]
        changes |= {"limit": limit, "tasks": tuple(tasks)}
    if batch_size is not None:
        models = [m.model_copy(update={"batch_size": batch_size}) for m in experiment.models]
        changes["models"] = tuple(models)
    if without_java:
        changes["java"] = "optional"
    if strict:
        changes["strict"] = True
    return experiment.model_copy(update=changes)


def run_one(path: Path, experiment: Experiment, journal: Path, output: Path, quiet: bool) -> bool:
    """Run one experiment, write and print its table.

    Returns:
        Whether this process wrote the results, as the first of several does.
    """
    from otprune_lmms.experiments.folder import write_results
    from otprune_lmms.experiments.run import Places, run_experiment

    transformers.utils.logging.disable_progress_bar()
    begin = time.perf_counter()
    configs = experiment.pruning.configs()
    logger.info(
        "%s: %s models, %s settings, %s tasks; answers in %s, tables in %s",
        *(path, len(experiment.models), len(configs), len(experiment.task_limits())),
        *(journal, output),
    )
    try:
        places = Places(path.parent, journal, output)
        outcome = run_experiment(experiment, places, not quiet, eval_time=eval_time())
        if outcome is None:
            return False
        spent = time.perf_counter() - begin
        table = write_results(experiment, outcome, output, command_line(), spent)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        logger.debug("the whole story", exc_info=True)
        fail(f"{path}: {error}", 1)
    show(table)
    logger.info("%s seconds; written to %s", round(spent), output)
    return True
