"""Commands that are stopped (Ctrl-C, SIGTERM) say what is finished and how they go on."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import typer

from otprune_lmms.cli.common import command_line
from otprune_lmms.processes import Stopped, end_with_parent, scratch_folder, stoppable

if TYPE_CHECKING:
    from otprune_lmms.environment import Environment
    from otprune_lmms.experiments.stopwatch import Stopwatch

P = ParamSpec("P")
R = TypeVar("R")

_BEGUN_ANEW = "what it had not written yet is made anew by the same command"


@contextmanager
def stopped_in_words(said: Callable[[], str] = lambda: _BEGUN_ANEW) -> Iterator[None]:
    """In this context a signal ends the command with sentences and the status of a shell.

    The status is 130 after SIGINT, 143 after SIGTERM. Temporary files and processes that were
    started go too, whatever ends the command; so do processes of a launcher that is killed.

    Args:
        said: returns what is finished, as one sentence without its stop.
    """
    try:
        with stoppable(), scratch_folder():
            if _environment().launched:
                end_with_parent()
            yield
    except Stopped as stop:
        if not _environment().rank:
            typer.echo(f"stopped by {stop.name}: {said()}: {command_line()}", err=True)
        raise typer.Exit(stop.status) from None


def _environment() -> "Environment":
    from otprune_lmms.environment import Environment, SettingsError, read_environment

    try:
        return read_environment()
    except SettingsError:
        return Environment()  # the command that uses the settings reports it


def ends_in_words(command: Callable[P, R]) -> Callable[P, R]:
    """Return a command that ends as in `stopped_in_words` where it is stopped."""

    @functools.wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> R:
        with stopped_in_words():
            return command(*arguments, **options)

    return run


@contextmanager
def resumable(journal: Path) -> Iterator["Stopwatch"]:
    """In this context a command that answers into a journal can be stopped, see above.

    Yields:
        The watch that the command's work must use: it knows how far the command has come.
    """
    watches: list[Stopwatch] = []

    def said() -> str:
        if not watches:
            return "nothing was begun yet, the same command begins"
        (watch,) = watches
        where = "" if watch.stopped is None else f" It was at this: {watch.stopped}."
        return (
            f"{journal} has {watch.answers} answers more than before, all of which stay.{where} "
            "The same command goes on from there"
        )

    with stopped_in_words(said):
        from otprune_lmms.experiments import stopwatch

        watches.append(stopwatch.Stopwatch())
        yield watches[0]
