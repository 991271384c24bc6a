"""Equal cost instead of equal counts: what all layers of a language model together process."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from otprune import resolve_budget
from otprune.checks import check_count
from otprune.cost import DecoderShape, prefill_multiply_adds

Match = Literal["kept", "average", "flops"]
"""What a budget is about: the tokens after pruning, the average over layers, the multiply-adds."""


@dataclass(frozen=True, slots=True)
class Target:
    """A budget for all layers together; text tokens are not counted.

    Attributes:
        match: "average": visual tokens that enter a layer, on average over the layers; "flops":
            multiply-adds of the prefill of the visual tokens, convention 3ndm.
        keep_ratio: share of what the unpruned image costs; or
        k: cost of an image of ``k`` tokens in every layer; for "average" that is k tokens.
    """

    match: Match
    keep_ratio: float | None = None
    k: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.match not in ("average", "flops"):
            raise ValueError(f"match must be kept, average or flops, got {self.match!r}")
        if self.k is None or self.keep_ratio is not None:
            # Which of both, and in what range: as any budget.
            resolve_budget(1, keep_ratio=self.keep_ratio, k=self.k)
        else:
            check_count("k", self.k, least=1)

    def cost(self, shape: DecoderShape) -> Callable[[int], float]:
        """Return what a layer costs that so many visual tokens enter."""
        if self.match == "average":
            return float
        one = DecoderShape(
            shape.hidden, shape.feed_forward, 1, shape.heads, shape.kv_heads, shape.head_dim
        )
        return lambda tokens: float(prefill_multiply_adds(one, tokens, "3ndm"))

    def total(self, n: int, shape: DecoderShape) -> float:
        """Return what all layers together may cost for an image of ``n`` tokens."""
        cost = self.cost(shape)
        if self.k is not None:
            return shape.layers * cost(min(self.k, n))
        return shape.layers * cost(n) * (self.keep_ratio or 1.0)
