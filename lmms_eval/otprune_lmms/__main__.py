"""``python -m otprune_lmms``: run experiments, make their tables anew."""

import logging
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import transformers
import typer
from loguru import logger as lmms_eval_log
from rich.console import Console

from otprune_lmms.edge import VARIABLES, SettingsError, read_environment
from otprune_lmms.experiments.config import ConfigError, Experiment, load_experiment
from otprune_lmms.launch import check_installation

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Visual token pruning on lmms-eval's benchmarks: generate once, score many.",
)
logger = logging.getLogger("otprune_lmms")

if TYPE_CHECKING:
    from otprune_lmms.experiments.tables import Wide

Configs = Annotated[list[Path], typer.Argument(help="experiment files, as configs/mini.yaml")]


@app.command()
def run(
    configs: Configs,
    output_dir: Annotated[
        Path | None, typer.Option(help="folder of the tables; default results/<name>")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="documents of each task; for trying things out")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="prompts at once, instead of the experiment's")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="folder of finished answers; default logs/<name>")
    ] = None,
    without_java: Annotated[
        bool, typer.Option("--without-java", help="leave caption metrics out where Java is missing")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
) -> None:
    """Run experiments and print their tables.

    What the journal has is not done again: an interrupted run goes on where it stopped, and a
    finished one ends in seconds. Under accelerate or torchrun each process answers its share.
    """
    _log(quiet)
    try:
        check_installation()
        environment = read_environment()
        loaded = [load_experiment(path) for path in configs]
    except (ConfigError, SettingsError, RuntimeError) as error:
        _fail(error, 2)
    if environment.rank:
        logger.setLevel(logging.WARNING)
    elif environment.settings():
        names = ", ".join(VARIABLES[name] for name in environment.settings())
        logger.warning("%s in the environment: not used, an experiment is its file", names)
    experiments = [_override(one, limit, batch_size, without_java) for one in loaded]
    if len(experiments) > 1 and (output_dir or journal):
        _fail("--output-dir and --journal go with one experiment", 2)
    for path, experiment in zip(configs, experiments, strict=True):
        folder = journal or Path("logs") / experiment.name
        # A trial run must not overwrite the results of a whole one.
        trial = folder / f"results-limit{limit}" if limit else Path("results") / experiment.name
        _run(path, experiment, folder, output_dir or trial, quiet)


@app.command()
def tables(
    folders: Annotated[list[Path], typer.Argument(help="results folders of earlier runs")],
) -> None:
    """Make the tables of earlier runs anew from their records."""
    _log(quiet=False)
    from otprune_lmms.experiments.output import remake

    for folder in folders:
        try:
            _show(remake(folder))
        except (ValueError, OSError) as error:
            _fail(error, 2)


def _run(path: Path, experiment: Experiment, journal: Path, output: Path, quiet: bool) -> None:
    """Run one experiment, print its table."""
    from otprune_lmms.experiments.output import write_results
    from otprune_lmms.experiments.run import Places, run_experiment

    transformers.utils.logging.disable_progress_bar()
    begin = time.perf_counter()
    cells = experiment.cells.cells()
    logger.info(
        "%s: %s models, %s settings, %s tasks; answers in %s, tables in %s",
        *(path, len(experiment.models), len(cells), len(experiment.task_limits())),
        *(journal, output),
    )
    try:
        outcome = run_experiment(experiment, Places(path.parent, journal, output), not quiet)
        if outcome is None:
            return
        spent = time.perf_counter() - begin
        table = write_results(experiment, outcome, output, _command(), spent)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        logger.debug("the whole story", exc_info=True)
        _fail(f"{path}: {error}", 1)
    _show(table)
    logger.info("%s seconds; written to %s", round(spent), output)


def _show(table: "Wide") -> None:
    """Print a table whole: a terminal that is too narrow may fold its lines, not cut numbers."""
    from otprune_lmms.experiments.tables import terminal

    console, drawn = Console(), terminal(table)
    console.width = max(console.width, Console(width=1000).measure(drawn).maximum)
    console.print(drawn)
    for note in table.notes:
        console.print(note, highlight=False, soft_wrap=True)


def _override(
    experiment: Experiment, limit: int | None, batch_size: int | None, without_java: bool
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
    return experiment.model_copy(update=changes)


def _command() -> str:
    return shlex.join(["python", "-m", "otprune_lmms", *sys.argv[1:]])


def _log(quiet: bool) -> None:
    """Show our own messages; of lmms-eval and others what is a warning."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for room in ("otprune_lmms", "llava", "otprune"):
        logging.getLogger(room).setLevel(logging.WARNING if quiet else logging.INFO)
    lmms_eval_log.remove()
    lmms_eval_log.add(sys.stderr, level="ERROR")


def _fail(error: object, code: int) -> NoReturn:
    """End with a sentence on standard error."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"error: {error}", markup=False)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
