"""Command lines: options of every command with values that they cannot have, and typing slips."""

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import typer
from otprune_lmms.cli.app import app

from attack.commands import otprune, write_experiment
from attack.doors.case import Case, write_raw
from attack.doors.images import _image
from attack.doors.stored import copy_results
from attack.warm import MINI

_NUMBERS = ("x", "", "1.5", "²", "-1", "1e9", "0x10", "nan", "99999999999999999999", "--")

WORDS: dict[str, tuple[str, ...]] = {
    "limit": ("0", *_NUMBERS),
    "batch_size": ("0", "1000000000", *_NUMBERS),
    "images": _NUMBERS,
    "samples": ("0", *_NUMBERS),
    "repeats": ("0", *_NUMBERS),
    "warmup": _NUMBERS,
    "per_task": ("0", *_NUMBERS),
    "shards": ("0", *_NUMBERS),
    "k": ("0", "100000", *_NUMBERS),
    "keep_ratio": ("9.8", "0", "-1", "nan", "inf", "x", "", "1e-400"),
    "shard": ("3/2", "0/2", "x", "1/0", "", "1", "-1/2", "1/2/3", "²/²"),
    "shard_by": ("nothing", "", "document"),
    "convention": ("nothing", "", "4ndm"),
    "format": ("nothing", "", "jpg"),
    "describe": ("nobody", "", "otprun", "../x"),
    "device": ("gpu", "cuda:99", "", "tpu", "cuda:x"),
    "family": ("nobody", ""),
    "method": (
        *("nobody", "", "none", "otprune:gama=1", "otprune:gamma=x", "otprune:gamma", "otprun"),
        *("otprune:gamma=[1", "otprune:gamma={", "otprune:=1", ":", "otprune:gamma=!!python/x 1"),
        *("fastv", "random:seed=-1", "otprune:gamma=nan", "otprune:gamma=1e400"),
    ),
    "model": ("./nothing", "/nothing/at/all", "", "try.yaml", "a/b/c"),
    "journal": ("", " ", "file", "file/below", "nowhere"),
    "output_dir": ("", " ", "file", "file/below", "nowhere"),
    "out": ("", "file/below.png", "folder", "x.nothing"),
    "config_dir": ("", "nothing", "file"),
    "tasks": ("", "nothing", "file"),
}
"""Impossible values of an option, by its name."""

PATHS = ("nothing.yaml", "", "folder", "file", "image.png", "a\nb", "nothing/at/all", "x" * 300)
"""What is no experiment, no results folder and no image; one of them is of another kind."""


_RIGHT = {"prune": "image.png"} | dict.fromkeys(
    ("table", "plot", "report", "verify"), "outputs/try"
)
"""What a command is given where it is no experiment."""


def _commands() -> dict[str, list[Any]]:
    """Return the options and arguments of each command."""
    group: Any = typer.main.get_command(app)
    return {name: list(command.params) for name, command in group.commands.items()}


def case(draw: Random, folder: Path) -> Case:
    """Return a command line with one slip."""
    write_experiment(folder / "try.yaml", ["pope"], limit=2)
    write_raw(folder / "file", "no folder\n")
    (folder / "folder").mkdir()
    write_raw(folder / "image.png", _image("PNG", draw))
    name, parameters = draw.choice(sorted(_commands().items()))
    known = [one for one in parameters if one.name in WORDS]
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    right = [_RIGHT.get(name, "try.yaml")] if arguments else []
    if name == "prune":
        right += ["--model", str(MINI)]
    if name == "slurm":
        right = ["--shards", "2", *right]
    if right == ["outputs/try"]:
        copy_results(folder)
    way = draw.random()
    if way < 0.6 and known:
        option = draw.choice(known)
        value = draw.choice(WORDS[option.name])
        line = [name, *right, option.opts[0], value]
        parts = [one for one in re.split("[:=,]", value) if len(one) > 1]
        named: Sequence[str] = (option.opts[0], value or option.opts[0], option.name, *parts)
        # "nowhere" is made; a journal that is not there is empty; what prune is given is checked.
        # So may be what is at most, and more than there are.
        # Slurm's scripts name folders that are seen elsewhere.
        may_work = name == "slurm" or value in ("nowhere", "--", "99999999999999999999")
    elif way < 0.8 and arguments:
        value = draw.choice(PATHS)
        line = [name, *(["--shards", "2"] if name == "slurm" else []), value]
        named = (value or "got nothing", repr(value)[1:-1], arguments[0].name)
        may_work = name == "prune"
    else:
        slip = draw.choice([*"ab"]) + draw.choice(["limt", "nothing", "out-dir"])
        line = draw.choice(
            [
                [name, *right, f"--{slip}"],
                [name[:-1] + "x", *right],
                [name, *right, "--help=1"],
                [name, *right, f"-{slip}", "1"],
                [f"--{slip}", name],
            ]
        )
        named, may_work = (slip, f"{name[:-1]}x", "--help", "-a", "-b"), False
    return Case(repr(line), otprune(folder, *line), tuple(named), may_work)
