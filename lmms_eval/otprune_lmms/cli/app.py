"""The command ``otprune``: all its commands."""

import typer

from otprune_lmms.cli.run import run
from otprune_lmms.cli.table import table

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Visual token pruning on lmms-eval's benchmarks: generate once, score many.",
)
for _command in (run, table):
    app.command()(_command)
