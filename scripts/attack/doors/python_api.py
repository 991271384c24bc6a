"""The Python API: public functions with one argument that they cannot take."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from llava.chat import ask
from llava.model.builder import load_pretrained_model
from otprune_lmms.experiments.config import TASKS, load_experiment
from otprune_lmms.journal import Journal
from otprune_lmms.models import ModelSource, check_source, load_model
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.tables import write_tables
from otprune_lmms.scoring import load_tasks

from attack.children import Say
from attack.doors.case import ODD, Case, write_raw
from attack.warm import MINI, single_threaded
from otprune import PRUNERS, make_pruner
from otprune.pruning import make_pruning

EXPECTED = (ValueError, TypeError, OSError, RuntimeError)
"""What public functions may raise; `RuntimeError` only as a class of ours."""

TOKENS = torch.linspace(0, 1, 12 * 8).reshape(12, 8)

Call = Callable[[Any, Path], object]

_pruner: Callable[..., Any] = make_pruner

CALLS: dict[str, tuple[Call, tuple[Any, ...]]] = {
    "make_pruner(x)": (lambda x, _: _pruner(x), (None, 5, "", "nobody", "otprun", [], b"x")),
    "make_pruner('otprune', gamma=x)": (
        lambda x, _: _pruner("otprune", gamma=x),
        ("x", float("nan"), -1, None, [], float("inf"), True),
    ),
    "make_pruner('otprune', x)": (
        lambda x, _: _pruner("otprune", **{x: 1}),
        ("gama", "k", "seed", "__init__"),
    ),
    "select(x, 3)": (
        lambda x, _: _pruner("otprune").select(x, 3),
        (
            None,
            5,
            "x",
            [],
            TOKENS[0],
            TOKENS[:0],
            TOKENS * float("nan"),
            TOKENS.long(),
            TOKENS[:2],
        ),
    ),
    "select(tokens, x)": (
        lambda x, _: _pruner("divprune").select(TOKENS, x),
        (0, -1, 13, 1.5, "x", None, True, 10**30),
    ),
    "PruningConfig.make('otprune', keep_ratio=x)": (
        lambda x, _: PruningConfig.make("otprune", keep_ratio=x),
        (9.8, 0, -1, float("nan"), "x", [], True, None),
    ),
    "PruningConfig.make(x, k=3)": (
        lambda x, _: PruningConfig.make(x, k=3),
        ("nobody", 5, "", [], "otprun"),
    ),
    "PruningConfig.make('otprune', k=3, layer=x)": (
        lambda x, _: PruningConfig.make("otprune", k=3, layer=x),
        (-1, 1.5, "x", None, True, []),
    ),
    "make_pruning(x, k=3)": (
        lambda x, _: make_pruning(x, k=3),
        ("nobody", None, 5, "", []),
    ),
    "make_pruning('fastv', keep_ratio=x)": (
        lambda x, _: make_pruning("fastv", keep_ratio=x),
        (9.8, 0, float("nan"), "x", []),
    ),
    "load_experiment(x)": (
        lambda x, folder: load_experiment(folder / x),
        ("nothing.yaml", "folder", "file", "x" * 300),
    ),
    "load_tasks(x)": (
        lambda x, _: load_tasks(x, TASKS / "mini"),
        ([], ["nobody"], [""], ["pope", "nobody"]),
    ),
    "load_tasks(['pope'], x)": (
        lambda x, folder: load_tasks(["pope"], folder / x),
        ("nothing", "folder", "file"),
    ),
    "Journal(x, readonly=True)": (
        lambda x, folder: Journal(folder / x, readonly=True),
        ("nothing", "file"),
    ),
    "Journal(x)": (lambda x, folder: Journal(folder / x), ("file", "file/below")),
    "write_tables(x)": (lambda x, folder: write_tables(folder / x), ("nothing", "folder", "file")),
    "check_source(pretrained=x)": (
        lambda x, _: check_source(ModelSource(str(MINI), family=x)),
        ("nobody", "", None, 5),
    ),
    "load_model(x)": (
        lambda x, folder: load_model(ModelSource(str(folder / x), device="cpu")),
        ("nothing", "folder", "file"),
    ),
    "ask(question=x)": (
        lambda x, _: ask(_loaded(), x, max_new_tokens=1),
        ("<image>", "<image> <image>"),
    ),
    "ask(images=x)": (
        lambda x, folder: ask(_loaded(), "What?", x, max_new_tokens=1),
        ("nothing.png", 5, [5], [None], b"no image", ["nothing.png"], torch.zeros(3, 4), [[]]),
    ),
    "ask(pruning=x)": (
        lambda x, _: ask(_loaded(), "What?", pruning=x, max_new_tokens=1),
        ("nobody", "", 5, [], "otprun"),
    ),
    "ask(template=x)": (
        lambda x, _: ask(_loaded(), "What?", template=x, max_new_tokens=1),
        ("nobody", "", None, 5),
    ),
    "ask(pruning='otprune', k=x)": (
        lambda x, _: ask(_loaded(), "What?", pruning="otprune", k=x, max_new_tokens=1),
        (0, -1, 1.5, "x"),
    ),
}
"""Calls with ``x``, and values of ``x`` that they cannot take."""


def _loaded() -> Any:
    return load_pretrained_model(str(MINI), device="cpu", torch_dtype="float32")


def case(draw: Random, folder: Path) -> Case:
    """Return a call with one impossible argument; it must raise an error that says so."""
    write_raw(folder / "file", "no folder\n")
    (folder / "folder").mkdir()
    if draw.random() < 0.25:
        name = draw.choice(sorted(PRUNERS))
        field = draw.choice([one for one in PRUNERS[name].__dataclass_fields__] or ["nothing"])
        odd = draw.choice([one for one in ODD if not isinstance(one, bool | int | float)])
        what, value = f"make_pruner({name!r}, {field}=x)", odd
        call: Call = lambda x, _: _pruner(name, **{field: x})  # noqa: E731 - as those above
        named, may_work = (field,), True
    else:
        what = draw.choice(list(CALLS))
        call, values = CALLS[what]
        value = draw.choice(values)
        named, may_work = _names(what, value), False

    def work(_: Say) -> None:
        single_threaded()
        try:
            call(value, folder)
        except EXPECTED as error:
            plain = type(error) is RuntimeError
            if plain:
                raise
            raise SystemExit(f"{type(error).__name__}: {error}") from None

    return Case(f"{what} with x = {value!r:.60}", work, named, may_work)


def _names(what: str, value: Any) -> tuple[str, ...]:
    """Return the value, and the names of arguments and functions that a message may have."""
    words = what.replace("(", " ").replace(")", " ").replace("=", " ").replace(",", " ").split()
    others = ("must", "no ", "cannot", "images", "tokens", "name")
    return (*(word.strip("'") for word in words if word != "x"), f"{value!s:.40}", *others)
