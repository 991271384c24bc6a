"""LLaVA-1.5 and others whose tower gives each image, or tile, as one square raster of patches."""

from collections.abc import Mapping
from math import isqrt
from typing import Any

from otprune.hf.families.family import Family
from otprune.hf.families.packed import PixtralTower
from otprune.hf.families.pixtral import size_grid
from otprune.hf.families.tower import TOWERS, TileTower, Tower
from otprune.hf.families.towered import TowerFamily


class SquareFamily(Family):
    """A family whose pieces are square rasters, row by row."""

    def grid(self, part: int, n: int, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return the square's side twice; None for another number of tokens."""
        side = isqrt(n)
        return (side, side) if side * side == n else None


class Llava(TowerFamily, SquareFamily):
    """LLaVA-1.5 and relatives; CLIP, SigLIP, DINOv2, Pixtral towers give signals, others none."""

    def _tower(self) -> Tower | None:
        layer, tower = self.model.config.vision_feature_layer, self.base.vision_tower
        if not isinstance(layer, int):
            return None
        if tower.config.model_type == "pixtral":
            return PixtralTower(tower, layer)
        return tile_tower(self.model.config, tower, layer)

    @property
    def resizes(self) -> bool:
        """Whether the tower takes tiles, which may have other sizes."""
        return isinstance(self.tower, TileTower)

    def grid(self, part: int, n: int, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return rows and columns of patches: a square, or what ``image_sizes`` say."""
        if inputs.get("image_sizes") is None:
            return super().grid(part, n, inputs)
        return size_grid(self.model.config, part, n, inputs)


def tile_tower(config: Any, tower: Any, layer: int | None) -> TileTower | None:
    """Return a tower of tiles if its type is known.

    Args:
        config: the model's, which says whether the CLS token is left out.
        tower: the encoder.
        layer: see `Tower`.
    """
    if str(tower.config.model_type) not in TOWERS:
        return None
    return TileTower(tower, layer, config.vision_feature_select_strategy == "default")
