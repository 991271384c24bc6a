"""A clock that counts how often it is looked at."""

from collections.abc import Callable


class Ticks:
    """One second from each mark to the next, or ``step(number)``."""

    def __init__(self, step: Callable[[int], float] = lambda number: 1.0) -> None:
        self.step, self.marks, self.now = step, 0, 0.0

    def mark(self) -> float:
        self.now += self.step(self.marks)
        self.marks += 1
        return self.now

    def seconds(self, begin: float, end: float) -> float:
        return end - begin
