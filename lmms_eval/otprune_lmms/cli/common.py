"""What the commands share: logging, errors, the command as it was typed."""

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer

from otprune_lmms.cli.terminal import say
from otprune_lmms.processes import check_address_space
from otprune_lmms.terminal_text import printable

logger = logging.getLogger("otprune_lmms")


class _Formatter(logging.Formatter):
    """Writes control characters out: messages may quote documents and file names."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line."""
        return printable(super().format(record))


def log(quiet: bool) -> None:
    """Configure the log: our packages from INFO (quiet: WARNING), lmms-eval from ERROR."""
    # loguru is lmms-eval's log.
    from loguru import logger as lmms_eval_log

    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in ("otprune_lmms", "llava", "otprune"):
        logging.getLogger(package).setLevel(logging.WARNING if quiet else logging.INFO)
    lmms_eval_log.remove()
    lmms_eval_log.add(sys.stderr, level="ERROR")


def fail(error: object, code: int) -> NoReturn:
    """Print an error on standard error, and exit with a code."""
    say(f"error: {error}", stderr=True)
    raise typer.Exit(code)


def check_memory() -> None:
    """Exit with code 1 where this process may use too little memory to import models."""
    try:
        check_address_space()
    except RuntimeError as error:
        fail(error, 1)


def say_removed(folder: Path, removed: Sequence[str], again: str) -> None:
    """Name pages of earlier numbers that a command has removed and does not make again.

    Args:
        folder: of the results.
        removed: names of the pages; none of them: nothing is said.
        again: the commands that make them again.
    """
    if removed:
        logger.warning(
            "%s: %s removed, since they were made of earlier numbers or by another version; "
            "%s makes them again",
            *(folder, ", ".join(removed), again),
        )


def command_line() -> str:
    """Return the command line, quoted for a shell."""
    return shlex.join(["otprune", *sys.argv[1:]])


def check_folder(model: str) -> None:
    """Raise ``ValueError`` for a path, which no hub id is, without a folder there."""
    looks_like_a_path = model.startswith((".", "/", "~")) or model.count("/") > 1
    if looks_like_a_path and not Path(model).expanduser().is_dir():
        raise ValueError(f"--model must be a folder or a hub id: no folder {model}")


def method_parts(text: str) -> tuple[str, dict[str, Any]]:
    """Return a method as it was typed, ``name`` or ``name:setting=value,...``, in its parts."""
    import yaml

    name, _, rest = text.partition(":")
    settings: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"--method must be name:setting=value, got {text!r}")
        try:
            # YAML takes a schedule like 2:32 for a number.
            settings[key.strip()] = value if ":" in value else yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            raise ValueError(
                f"--method must be name:setting=value with a plain value, got {value!r} for "
                f"{key.strip()}"
            ) from None
    if name in ("", "none"):
        raise ValueError("--method must name a pruning method")
    return name, settings
