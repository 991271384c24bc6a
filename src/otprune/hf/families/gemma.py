"""Gemma 3 and PaliGemma: a SigLIP tower; in Gemma 3 squares of patches are averaged."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from otprune.hf.families.llava import SquareFamily
from otprune.hf.families.tower import TileTower, Tower
from otprune.hf.families.towered import TowerFamily, blocks_of


class PaliGemma(TowerFamily, SquareFamily):
    """PaliGemma and PaliGemma 2: a token for each patch."""

    def _tower(self) -> Tower | None:
        return TileTower(self.base.vision_tower, None)


class Gemma3(PaliGemma):
    """Gemma 3, whose projector first averages patches, 4 x 4 in all releases."""

    @property
    def merges(self) -> bool:
        """Whether a token is made of several patches."""
        return True

    def patches_of(self, part: int, n: int, inputs: Mapping[str, Any]) -> Int64[Tensor, "n u"]:
        """Return the patches of each token."""
        projector = self.projector
        side = int(projector.patches_per_image)
        return blocks_of(side, side, int(projector.kernel_size))
