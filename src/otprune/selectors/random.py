"""Random: the baseline of every table."""

from dataclasses import dataclass

import torch

from otprune.checks import check_count
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class Random(Selector):
    """Uniformly random tokens without replacement; nested, O(n).

    The draw depends on ``seed``, the image's ``signals.image_id`` and n alone, not on the device,
    the batch or the tokens. Without an ``image_id`` all images of n tokens share one draw, which is
    reproducible but makes their errors dependent; a benchmark should pass it.

    Attributes:
        seed: seed >= 0.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_count("seed", self.seed)

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        image = -1 if signals.image_id is None else signals.image_id
        # Mixed by the golden ratio, so that neighbouring ids give unrelated 64-bit seeds.
        mixed = (self.seed * 0x9E3779B97F4A7C15 + (image + 1) * 0xBF58476D1CE4E5B9) % 2**63
        generator = torch.Generator().manual_seed(mixed)
        return torch.randperm(len(tokens), generator=generator)[:k].to(tokens.device)
