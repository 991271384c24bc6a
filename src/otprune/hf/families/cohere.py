"""Aya Vision and Command A Vision (Cohere 2 Vision): SigLIP and pixel shuffle."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from otprune.hf.families.llava import SquareFamily, tile_tower
from otprune.hf.families.tower import TileTower, Tower
from otprune.hf.families.towered import TowerFamily


class Cohere2Vision(TowerFamily, SquareFamily):
    """Command A Vision."""

    def _tower(self) -> Tower | None:
        return TileTower(self.base.vision_tower, None)

    @property
    def merges(self) -> bool:
        """Whether a token is made of several patches."""
        return self.model.config.downsample_factor > 1

    def patches_of(self, part: int, n: int, inputs: Mapping[str, Any]) -> Int64[Tensor, "n u"]:
        """Return the patches of each token, which the model's own pixel shuffle puts together."""
        count = n * self.model.config.downsample_factor**2
        numbers = torch.arange(count, dtype=torch.float32)[None, :, None]
        return self.projector.pixel_shuffle(numbers).reshape(n, -1).long()


class AyaVision(Cohere2Vision):
    """Aya Vision, which may take another hidden state than the last."""

    def _tower(self) -> Tower | None:
        layer = self.model.config.vision_feature_layer
        if not isinstance(layer, int):
            return None
        return tile_tower(self.model.config, self.base.vision_tower, layer)
