"""The command ``otprune``: all its commands.

Its modules import what is heavy (torch, pandas, lmms-eval) when a command needs it: ``--help``,
``--version`` and the completion of a shell answer at once.
"""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from otprune_lmms.cli.analyze import analyze
from otprune_lmms.cli.bench import bench
from otprune_lmms.cli.doctor import doctor
from otprune_lmms.cli.leaderboard import leaderboard, submit
from otprune_lmms.cli.methods import methods
from otprune_lmms.cli.models import models
from otprune_lmms.cli.plot import plot
from otprune_lmms.cli.prune import prune
from otprune_lmms.cli.report import report
from otprune_lmms.cli.run import run, sweep
from otprune_lmms.cli.serve import serve
from otprune_lmms.cli.slurm import slurm
from otprune_lmms.cli.status import status
from otprune_lmms.cli.table import table
from otprune_lmms.cli.terminal import say
from otprune_lmms.cli.thresholds import thresholds
from otprune_lmms.cli.verify import verify
from otprune_lmms.installation import MISSING
from otprune_lmms.terminal_text import degrade_output

_NO_MEMORY = "error: the memory that this process may use is not enough\n"


class _App(typer.Typer):
    """A Typer whose output fits the terminal's encoding, messages about mistakes included."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command that the command line names."""
        degrade_output()
        try:
            return super().__call__(*args, **kwargs)
        except ModuleNotFoundError as error:
            # The one requirement that no installer brings; commands that need it import it late.
            if (error.name or "").partition(".")[0] != "lmms_eval":
                raise
            say(f"error: {MISSING}", stderr=True)
            sys.exit(2)
        except MemoryError:
            # Plainly: there may be no memory for more.
            sys.stderr.write(_NO_MEMORY)
            sys.exit(1)


app = _App(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Visual token pruning on lmms-eval's benchmarks: generate once, score many. An experiment "
        "is a YAML file (configs/); `run` answers it and prints its table, `sweep` takes several "
        "in one pass and makes everything else too, `verify` checks what is in results/."
    ),
)
_RUN, _SHOW, _LOOK, _SERVE = (
    "Answer and score",
    "Tables, figures, pages",
    "Look before you run",
    "Clusters and servers",
)
_COMMANDS = (
    (_RUN, (run, sweep, status, bench, thresholds, verify)),
    (_SHOW, (table, plot, report, analyze, leaderboard, submit)),
    (_LOOK, (doctor, methods, models, prune)),
    (_SERVE, (slurm,)),
)
for _group, _members in _COMMANDS:
    for _command in _members:
        app.command(rich_help_panel=_group)(_command)
# What follows -- is another program's.
app.command(context_settings={"allow_extra_args": True}, rich_help_panel=_SERVE)(serve)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    parts = [f"{name} {_version(name)}" for name in ("torch", "transformers", "lmms_eval")]
    parts = [f"Python {platform.python_version()}", *parts]
    say(f"otprune {_version('otprune-lmms')} ({', '.join(parts)})")
    raise typer.Exit()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


Version = Annotated[
    bool, typer.Option("--version", callback=_show_version, is_eager=True, help="versions, and end")
]


@app.callback()
def _options(show_version: Version = False) -> None:
    """Take the options that belong to no command."""
