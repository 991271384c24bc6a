"""The command ``otprune``: all its commands."""

import typer

from otprune_lmms.cli.analyze import analyze
from otprune_lmms.cli.bench import bench
from otprune_lmms.cli.plot import plot
from otprune_lmms.cli.prune import prune
from otprune_lmms.cli.report import report
from otprune_lmms.cli.run import run, sweep
from otprune_lmms.cli.slurm import slurm
from otprune_lmms.cli.status import status
from otprune_lmms.cli.table import table
from otprune_lmms.cli.verify import verify

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Visual token pruning on lmms-eval's benchmarks: generate once, score many. An experiment "
        "is a YAML file (configs/); `run` answers it and prints its table, `sweep` takes several "
        "in one pass and makes everything else too, `verify` checks what is in results/."
    ),
)
_COMMANDS = (run, sweep, status, table, plot, report, analyze, bench, prune, verify, slurm)
for _command in _COMMANDS:
    app.command()(_command)
