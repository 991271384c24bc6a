"""The seconds that a part may take, and what does not fit into them or into the GPU's memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Budget:
    """What is left of a part's seconds, and what was left out.

    Args:
        seconds: how many there are, from now on.

    Attributes:
        left_out: a row for each thing that was left out, with the reason.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.left_out: list[dict[str, str]] = []

    def left(self) -> float:
        """Return the seconds that are left, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def allows(self, what: str, seconds: float) -> bool:
        """Return whether so many seconds are left; if not, note that ``what`` is left out."""
        left = self.left()
        if seconds <= left:
            return True
        self._leave_out(what, f"it needs about {seconds:.0f} s, {left:.0f} s were left")
        return False

    @contextmanager
    def fits(self, what: str) -> Iterator[None]:
        """Note that ``what`` is left out if the GPU's memory is too small for the block."""
        try:
            yield
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            self._leave_out(what, "the GPU's memory is too small")

    def _leave_out(self, what: str, why: str) -> None:
        self.left_out.append({"left out": what, "why": why})

    def turns(self, wanted: int, seconds: float) -> int:
        """Return how many turns of so many seconds fit, at least one and at most ``wanted``."""
        return max(1, min(wanted, int(self.left() / max(seconds, 1e-9))))


def shared_out(shares: dict[str, int], now: str, left: float) -> float:
    """Return the seconds of the part ``now``: its share of what is left for it and all later ones.

    Args:
        shares: of all parts, in their order.
        now: the part that begins.
        left: seconds.
    """
    names = list(shares)
    later = names[names.index(now) :]
    return left * shares[now] / sum(shares[name] for name in later)
