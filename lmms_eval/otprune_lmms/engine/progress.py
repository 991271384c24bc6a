"""Progress of a run: a bar on a terminal, otherwise a log line every 30 s."""

import logging
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.progress import Task as BarTask
from rich.text import Text

logger = logging.getLogger(__name__)

_PAUSE = 30.0
"""Seconds between two log lines."""


class _Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: BarTask) -> Text:
        """Return the rate as text."""
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


class Progress:
    """Counts the items done in one phase and shows them.

    Args:
        what: name of the phase, as shown.
        total: number of items.
        shown: whether anything is shown.
        console: where the bar is drawn, by default standard error; if it is no terminal, lines are
            logged instead.
    """

    def __init__(self, what: str, total: int, shown: bool, console: Console | None = None) -> None:
        self.what, self.total, self.done = what, total, 0
        self._start = self._logged = time.monotonic()
        console = console or Console(stderr=True)
        self._lines = shown and not console.is_terminal
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not shown or self._lines or total == 0,
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> "Progress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the bar, and log a last line."""
        self._bar.stop()
        if self._lines and self.total and self._logged > self._start:
            logger.info("%s", self.line())

    def advance(self, items: int) -> None:
        """Count items as done."""
        self.done += items
        self._bar.advance(self._task, items)
        if self._lines and time.monotonic() - self._logged >= _PAUSE:
            self._logged = time.monotonic()
            logger.info("%s", self.line())

    def line(self) -> str:
        """Return state, rate, time spent and time left in a line."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = self.done / seconds
        left = (self.total - self.done) / rate if rate else float("inf")
        rest = f"{_clock(left)} left" if rate else "time left unknown"
        return f"{self.what}: {self.done}/{self.total}, {rate:.2f}/s, {_clock(seconds)}, {rest}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
