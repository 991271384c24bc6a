"""Bad inputs, drawn from a grammar for each place at which something comes into the harness."""

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from attack.doors import (
    chat,
    checkpoints,
    command_lines,
    environments,
    experiments,
    images,
    model_args,
    python_api,
    stored,
    tasks,
)
from attack.doors.case import Case

Door = Callable[[Random, Path], Case]
"""Draws a case; its files are written into the given empty folder."""

DOORS: Mapping[str, tuple[Door, int]] = {
    "experiment files": (experiments.case, 6),
    "task files and their data": (tasks.case, 4),
    "images": (images.case, 4),
    "checkpoints": (checkpoints.case, 5),
    "journals": (stored.journal_case, 2),
    "results folders": (stored.results_case, 4),
    "command lines": (command_lines.case, 6),
    "environment variables": (environments.case, 3),
    "model_args of lmms-eval": (model_args.case, 4),
    "chat": (chat.case, 3),
    "Python": (python_api.case, 5),
}
"""Each door, and its share of the inputs."""
