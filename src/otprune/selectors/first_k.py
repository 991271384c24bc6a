"""First-K: the first tokens of the raster order, the top rows of the image."""

from dataclasses import dataclass

import torch

from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class FirstK(Selector):
    """Keep the first k tokens; a baseline of the OTPrune paper's Fig. 2. Nested, O(k)."""

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        return torch.arange(k, device=tokens.device)
