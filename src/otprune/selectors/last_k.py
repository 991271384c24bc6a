"""Last-K: the last tokens of the raster order, the bottom rows of the image."""

from dataclasses import dataclass

import torch

from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class LastK(Selector):
    """Keep the last k tokens; a baseline of the OTPrune paper's Fig. 2. Nested, O(k)."""

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        return torch.arange(len(tokens) - 1, len(tokens) - 1 - k, -1, device=tokens.device)
