"""Where a task's code runs: it leaves nothing behind, prints nowhere, and guesses alike."""

import io
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import SimpleNamespace
from typing import Any


@contextmanager
def own_corner(task: Any) -> Iterator[None]:
    """Let files that a task's code writes land in a folder that goes away, its prints nowhere."""
    before = getattr(task, "args", None)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        task.args = SimpleNamespace(output_path=folder)
        try:
            yield
        finally:
            task.args = before


@contextmanager
def seeded() -> Iterator[None]:
    """Let random guesses in a task's code start from the same seed each time."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)
