"""Idefics3 and SmolVLM: all tiles of a prompt in one piece, text between the tiles."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers.utils.generic import ModelOutput

from otprune.hf.families.llava import SquareFamily
from otprune.hf.families.tower import TileTower, Tower
from otprune.hf.families.towered import TowerFamily


class Idefics3(TowerFamily, SquareFamily):
    """Idefics3 and SmolVLM; the prompt alone does not say which tiles are one image."""

    units = ("tile", "sample")
    parts_are = "tile"

    def _tower(self) -> Tower:
        return TileTower(self.base.vision_model, None)

    def parts(self, output: ModelOutput) -> list[Float[Tensor, "n d"]]:
        """Return the tokens tile by tile."""
        size = int(self.base.image_seq_len)
        return [tile for one in super().parts(output) for tile in one.split(size)]

    @property
    def merges(self) -> bool:
        """Whether a token is made of several patches: pixel shuffle."""
        return self.model.config.scale_factor > 1

    def patches_of(self, part: int, n: int, inputs: Mapping[str, Any]) -> Int64[Tensor, "n u"]:
        """Return the patches of each token, which the model's own pixel shuffle puts together."""
        scale = self.model.config.scale_factor
        numbers = torch.arange(n * scale**2, dtype=torch.float32)[None, :, None]
        return self.base.connector.pixel_shuffle(numbers, scale)[0].long()

    def padding(self, part: int, n: int, inputs: Mapping[str, Any]) -> Bool[Tensor, " n"] | None:
        """Return which tokens of a tile are made of patches without an attended pixel.

        None without ``pixel_attention_mask``.
        """
        mask, pixels = inputs.get("pixel_attention_mask"), inputs.get("pixel_values")
        if mask is None or pixels is None:
            return None
        # Tiles of zeros fill up prompts with fewer tiles; the model leaves them out.
        real = (pixels.flatten(0, 1) != 0).flatten(1).any(1)
        tile = mask.flatten(0, 1)[real][part].bool()
        side = int(self.model.config.vision_config.patch_size)
        patches = tile.unfold(0, side, side).unfold(1, side, side).flatten(2).any(-1).flatten()
        return ~patches.cpu()[self.patches_of(part, n, inputs)].any(-1)
