"""Keep the visual tokens with the largest norm: a method of a package of its own."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from otprune import Selector, Signals


@dataclass(frozen=True, slots=True)
class LargestNorm(Selector):
    """The k tokens with the largest p-norm over their channels; ties go to the lower index.

    Nested. Cost O(nd + n log n).

    Attributes:
        power: p; 2 is the Euclidean norm.
    """

    presets: ClassVar = {"manhattan": {"power": 1.0}}

    power: float = 2.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.power >= 1:
            raise ValueError(f"power must be at least 1, got {self.power!r}")

    def _rank_image(self, tokens: Tensor, k: int, signals: Signals) -> Tensor:
        norms = torch.linalg.vector_norm(tokens.float(), ord=self.power, dim=1)
        return norms.argsort(descending=True, stable=True)[:k]
