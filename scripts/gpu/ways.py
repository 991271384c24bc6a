"""Ways of pruning a model, a clock, and the calls that are timed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from otprune.hf import pruned

LAYER = 2
"""Where FastV prunes: at the input of the third layer, as in its paper."""


@dataclass(frozen=True)
class Way:
    """A way of pruning.

    Attributes:
        name: what tables say.
        method: of the registry; None for no pruning.
        settings: of the method, budget included.
        ratio: share of the visual tokens that is kept.
    """

    name: str
    method: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    ratio: float = 1.0

    def open(self, model: Any) -> Any:
        """Return the block in which the model is pruned so; it gives a trace or None."""
        if self.method is None:
            return nullcontext()
        return pruned(model, self.method, **self.settings)


UNPRUNED = Way("unpruned")


def way(method: str, ratio: float) -> Way:
    """Return a way of pruning by a method; layer pruners prune at one layer."""
    named: dict[str, Any] = {"keep_ratio": ratio}
    if method == "fastv":
        named = {"schedule": f"{LAYER}:{ratio}"}
    return Way(f"{method} {ratio:g}", method, named, ratio)


class Clock:
    """Adds up the milliseconds of what it is entered around.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: str) -> None:
        self.device, self.spent = device, 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Add the time of a block."""
        start = self.now()
        yield
        self.spent += self.now() - start

    def now(self) -> float:
        """Return the milliseconds at which all that was begun is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() * 1e3


def prefill(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Return the logits of each prompt's last token."""
    return model(**inputs, logits_to_keep=1, use_cache=True).logits[:, -1]


def verdict(unpruned: float, pruned_ms: float) -> str:
    """Return how much faster or slower than unpruned, within 2 % the same.

    A dash where a difference of times that was taken for a time is not above 0.
    """
    if min(unpruned, pruned_ms) <= 0:
        return "-"
    times = unpruned / pruned_ms
    if times > 1.02:
        return f"faster ×{times:.2f}"
    return f"slower ×{1 / times:.2f}" if times < 0.98 else "the same"
