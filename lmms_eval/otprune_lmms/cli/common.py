"""What the commands share: logging, errors, the command as it was typed."""

import logging
import shlex
import sys
from typing import NoReturn

import typer


def log(quiet: bool) -> None:
    """Configure the log: our packages from INFO (quiet: WARNING), lmms-eval from ERROR."""
    # loguru is lmms-eval's log.
    from loguru import logger as lmms_eval_log

    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for package in ("otprune_lmms", "llava", "otprune"):
        logging.getLogger(package).setLevel(logging.WARNING if quiet else logging.INFO)
    lmms_eval_log.remove()
    lmms_eval_log.add(sys.stderr, level="ERROR")


def fail(error: object, code: int) -> NoReturn:
    """Print an error on standard error, and exit with a code."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False).print(f"error: {error}", markup=False)
    raise typer.Exit(code)


def command_line() -> str:
    """Return the command line, quoted for a shell."""
    return shlex.join(["otprune", *sys.argv[1:]])
