"""DeepSeek-VL: a SigLIP tower, a token for each patch."""

from typing import Any

from otprune.hf.families.llava import SquareFamily
from otprune.hf.families.tower import TileTower, Tower
from otprune.hf.families.towered import TowerFamily


class DeepseekVL(TowerFamily, SquareFamily):
    """DeepSeek-VL with one tower; the hybrid has two, of which no one's patches are the tokens."""

    def _tower(self) -> Tower | None:
        return TileTower(self.base.vision_model, None)

    @property
    def projector(self) -> Any:
        """The module between vision encoder and language model."""
        return self.base.aligner
