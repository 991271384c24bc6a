"""Gemma 3 and PaliGemma: a SigLIP tower; in Gemma 3 squares of patches are averaged."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from otprune.hf.families.family import UnsupportedModelError
from otprune.hf.families.llava import SquareFamily
from otprune.hf.families.tower import TileTower, Tower
from otprune.hf.families.towered import TowerFamily, blocks_of
from otprune.hf.layers import DecoderAdapter


class PaliGemma(TowerFamily, SquareFamily):
    """PaliGemma and PaliGemma 2: a token for each patch."""

    def _tower(self) -> Tower | None:
        return TileTower(self.base.vision_tower, None)

    def adapter(self) -> DecoderAdapter:
        """Refuse: nothing proves that dropping is masking where a prompt sees its own end.

        Raises:
            UnsupportedModelError: always.
        """
        raise UnsupportedModelError(
            f"{self.name} cannot be pruned inside its language model: the positions of a prompt "
            "see each other in both directions; layer 0 prunes before it"
        )


class Gemma3(TowerFamily, SquareFamily):
    """Gemma 3, whose projector first averages patches, 4 x 4 in all releases."""

    def _tower(self) -> Tower | None:
        return TileTower(self.base.vision_tower, None)

    @property
    def merges(self) -> bool:
        """Whether a token is made of several patches."""
        return True

    def patches_of(self, part: int, n: int, inputs: Mapping[str, Any]) -> Int64[Tensor, "n u"]:
        """Return the patches of each token."""
        projector = self.projector
        side = int(projector.patches_per_image)
        return blocks_of(side, side, int(projector.kernel_size))
