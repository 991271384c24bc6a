"""Environment variables: those of launchers and those of the released code, with odd values."""

from pathlib import Path
from random import Random

from otprune_lmms.environment import VARIABLES

from attack.commands import lmms_eval, otprune, write_experiment
from attack.doors.case import Case
from attack.doors.model_args import words
from attack.warm import MINI

_NO_NUMBERS = ("x", "-1", "1.5", "²", "1e3", " ", "99999999999", "0x1", "nan")

OF_LAUNCHERS: tuple[dict[str, str], ...] = (
    *({"RANK": value, "WORLD_SIZE": "1"} for value in _NO_NUMBERS if value != " "),
    *({"WORLD_SIZE": value, "RANK": "0"} for value in _NO_NUMBERS if value != " "),
    *({"LOCAL_RANK": value, "RANK": "0", "WORLD_SIZE": "1"} for value in ("x", "²", "-1")),
    *({"MASTER_PORT": value} for value in ("x", "²", "-1")),
    {"RANK": "0"},
    {"RANK": "3", "WORLD_SIZE": "2"},
    {"WORLD_SIZE": "2"},
    {"LOCAL_RANK": "1"},
    {"EVAL_TIME": "maybe"},
    {"EVAL_TIME": "2"},
)
"""Read by every command that answers."""

OF_THE_RELEASED_CODE: tuple[dict[str, str], ...] = (
    {"BASELINE": "nobody"},
    {"BASELINE": "OURS"},
    {"BASELINE": "\x1b[31m"},
    {"BASELINE": "x" * 3000},
    {"LAYER_INDEX": "0"},
    *({"BASELINE": "OURS", "SUBSET_RATIO": one} for one in ("9.8", "0", "x", "nan", "-1", "²")),
    *(
        {"BASELINE": "OURS", "SUBSET_RATIO": "0.1", "LAYER_INDEX": one}
        for one in ("x", "-1", "99", "1.5", "²", "99999999999999999999")
    ),
    {"EVAL_TIME": "maybe"},
    {"RANK": "x"},
)
"""Read by lmms-eval's route."""

OF_THE_TERMINAL: tuple[dict[str, str], ...] = (
    {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
    {"COLUMNS": "1"},
    {"COLUMNS": "x"},
    {"TERM": "nothing"},
    {"NO_COLOR": "1", "FORCE_COLOR": "1"},
    {"HF_HOME": "/nothing/at/all"},
    {"LANG": "xx_YY.nothing"},
)
"""Odd, and no reason to fail."""


def case(draw: Random, folder: Path) -> Case:
    """Return a command under variables with one fault."""
    write_experiment(folder / "try.yaml", ["pope"], limit=2)
    kind = draw.randrange(5)
    if kind < 2:
        variables = draw.choice(OF_LAUNCHERS)
        command = draw.choice([["run", "try.yaml"], ["sweep", "try.yaml", "--no-report"]])
        work = otprune(folder, *command, "--quiet", variables=variables)
    elif kind < 4:
        variables = draw.choice(OF_THE_RELEASED_CODE)
        work = lmms_eval(folder, *words(f"pretrained={MINI}"), variables=variables)
    else:
        variables = draw.choice(OF_THE_TERMINAL)
        work = otprune(folder, "methods", variables=variables)
    # What a variable sets is called as in YAML: LAYER_INDEX=99 is layer 99.
    settings = [name for name, variable in VARIABLES.items() if variable in variables]
    return Case(f"{variables!r:.100}", work, (*variables, *settings), kind == 4)
