"""Budgets for all layers of a language model together: equal cost instead of equal counts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from otprune.budget import check_budget
from otprune.cost import DecoderShape, prefill_multiply_adds

Match = Literal["kept", "average", "flops"]
"""What a budget counts: tokens after pruning, tokens averaged over layers, or multiply-adds."""


@dataclass(frozen=True, slots=True)
class Target:
    """A budget for all layers together; text tokens are not counted.

    Attributes:
        match: what is counted. "average": visual tokens that enter a layer, averaged over the
            layers; "flops": multiply-adds of the visual tokens' prefill, convention 3ndm.
        keep_ratio: share of the unpruned image's cost; or
        k: the cost of an image that has ``k`` tokens in every layer ("average": k tokens).
    """

    match: Match
    keep_ratio: float | None = None
    k: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.match not in ("average", "flops"):
            raise ValueError(f"match must be kept, average or flops, got {self.match!r}")
        keep_ratio, k = check_budget(self.keep_ratio, self.k)
        object.__setattr__(self, "keep_ratio", keep_ratio)
        object.__setattr__(self, "k", k)

    def cost(self, shape: DecoderShape) -> Callable[[int], float]:
        """Return the function from visual tokens that enter a layer to what that layer costs."""
        if self.match == "average":
            return float
        one = DecoderShape(
            shape.hidden, shape.feed_forward, 1, shape.heads, shape.kv_heads, shape.head_dim
        )
        return lambda tokens: float(prefill_multiply_adds(one, tokens, "3ndm"))

    def total(self, n: int, shape: DecoderShape) -> float:
        """Return the cost that all layers together may reach for an image of ``n`` tokens."""
        cost = self.cost(shape)
        if self.k is not None:
            return shape.layers * cost(min(self.k, n))
        return shape.layers * cost(n) * (self.keep_ratio or 1.0)
