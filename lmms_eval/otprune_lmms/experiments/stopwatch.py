"""The time that a run takes by phase, and how far it has come."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up wall time by phase, and notes what was done, for a run that is stopped.

    Attributes:
        seconds: by phase.
        answers: answers that the journal has more than when they were begun.
        stopped: phase in which the process was asked to stop; None if it was not.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.answers = 0
        self.stopped: str | None = None

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of a block to a phase."""
        begin = time.perf_counter()
        try:
            yield
        except KeyboardInterrupt:
            self.stopped = self.stopped or phase
            raise
        finally:
            spent = time.perf_counter() - begin
            self.seconds[phase] = round(self.seconds.get(phase, 0.0) + spent, 2)
