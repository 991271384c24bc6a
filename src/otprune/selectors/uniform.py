"""Uniform: every n/k-th token of the raster order."""

from dataclasses import dataclass

import torch

from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class Uniform(Selector):
    """Even stride over the raster order: positions floor((2i + 1) n / 2k), i = 0..k-1.

    A baseline of the OTPrune paper's Fig. 2. Positions are the middles of k equal intervals, so
    that the selection is symmetric. Not nested. O(k).
    """

    @property
    def nested(self) -> bool:
        """No: the positions for fewer tokens are not among those for more."""
        return False

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        steps = torch.arange(k, device=tokens.device)
        return (2 * steps + 1) * len(tokens) // (2 * k)
