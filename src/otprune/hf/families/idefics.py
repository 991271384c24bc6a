"""Idefics3 and SmolVLM: all tiles of a prompt in one piece, text between the tiles."""

from jaxtyping import Float
from torch import Tensor
from transformers.utils.generic import ModelOutput

from otprune.hf.families.llava import SquareFamily


class Idefics3(SquareFamily):
    """Idefics3 and SmolVLM; the prompt alone does not say which tiles are one image."""

    units = ("tile", "sample")
    parts_are = "tile"

    def parts(self, output: ModelOutput) -> list[Float[Tensor, "n d"]]:
        """Return the tokens tile by tile."""
        size = int(self.base.image_seq_len)
        return [tile for one in super().parts(output) for tile in one.split(size)]
