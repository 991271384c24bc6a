"""Command lines as the work of a child, and the experiments and folders that they are run on."""

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from attack.children import Say, Work
from attack.warm import MINI, single_threaded

MAY_DIFFER = {
    "manifest.json",
    "answer_seconds.parquet",
    "selection_seconds.parquet",
    "selection_times.csv",
}
"""Files of a results folder that hold measured times, or are made of them."""


def otprune(folder: Path, *arguments: object, variables: Mapping[str, str] | None = None) -> Work:
    """Return the command ``otprune``, started in a folder with temporary files in its ``tmp``.

    Args:
        folder: the current folder of the command.
        arguments: of the command.
        variables: of the environment, beside those of this process.
    """

    def program() -> object:
        from otprune_lmms.cli.app import app

        return app([str(one) for one in arguments], prog_name="otprune")

    return _program(folder, ["otprune", *map(str, arguments)], variables, program)


def chat(folder: Path, *arguments: object, variables: Mapping[str, str] | None = None) -> Work:
    """Return the command ``python -m llava``, likewise."""

    def program() -> object:
        from llava.__main__ import app

        return app([str(one) for one in arguments], prog_name="llava")

    return _program(folder, ["llava", *map(str, arguments)], variables, program)


def lmms_eval(folder: Path, *arguments: object, variables: Mapping[str, str] | None = None) -> Work:
    """Return the command ``python -m lmms_eval``, likewise."""

    def program() -> object:
        from lmms_eval.__main__ import cli_evaluate
        from otprune_lmms.launch import prepare_command_line

        prepare_command_line()
        return cli_evaluate()

    return _program(folder, ["lmms-eval", *map(str, arguments)], variables, program)


def _program(
    folder: Path,
    line: list[str],
    variables: Mapping[str, str] | None,
    program: Callable[[], object],
) -> Work:
    def work(say: Say) -> object:
        single_threaded()
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        os.chdir(folder)
        os.environ.update({"TMPDIR": str(temporary), **(variables or {})})
        tempfile.tempdir = None  # read TMPDIR again
        sys.argv = line
        return program()

    return work


def write_experiment(path: Path, tasks: list[str], **changes: Any) -> None:
    """Write an experiment of the embedded model on embedded data.

    Args:
        path: of its file.
        tasks: their names.
        changes: further keys, or other values.
    """
    content = {
        "name": "try",
        "title": "A try",
        "suite": "mini",
        "models": [{"name": "mini", "pretrained": str(MINI), "batch_size": 8, "device": "cpu"}],
        "tasks": tasks,
        "pruning": {"controls": False, "keep_ratios": [0.25], "methods": ["otprune", "uniform"]},
        "workers": 1,
    }
    path.write_text(yaml.safe_dump(content | changes))


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder, by its place in it."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def facts_of(folder: Path) -> dict[str, bytes]:
    """Return the files of a results folder that must be equal after equal work."""
    return {name: content for name, content in files_of(folder).items() if name not in MAY_DIFFER}


def differing(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> list[str]:
    """Return names of files that are in one of two folders alone, or differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
