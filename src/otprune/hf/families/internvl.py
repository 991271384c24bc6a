"""InternVL: a tensor of tiles; the tiles of an image stand together in the prompt."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from otprune.hf.families.llava import SquareFamily, tile_tower
from otprune.hf.families.tower import Tower
from otprune.hf.families.towered import TowerFamily


class InternVL(TowerFamily, SquareFamily):
    """InternVL 2.5 and 3 in transformers' own layout; its tower has a CLS token."""

    units = ("image", "tile", "sample")
    parts_are = "tile"

    def _tower(self) -> Tower | None:
        layer = self.model.config.vision_feature_layer
        if not isinstance(layer, int):
            return None
        # The model takes the tower's last_hidden_state for -1.
        return tile_tower(self.model.config, self.base.vision_tower, None if layer == -1 else layer)

    @property
    def merges(self) -> bool:
        """Whether a token is made of several patches: pixel shuffle, 2 x 2 in all releases."""
        return self.model.config.downsample_ratio < 1

    def patches_of(self, part: int, n: int, inputs: Mapping[str, Any]) -> Int64[Tensor, "n u"]:
        """Return the patches of each token, which the model's own pixel shuffle puts together."""
        ratio = self.model.config.downsample_ratio
        side = round((n / ratio**2) ** 0.5)
        numbers = torch.arange(side * side, dtype=torch.float32).view(1, side, side, 1)
        return self.base.pixel_shuffle(numbers, scale_factor=ratio).reshape(n, -1).long()
