"""Mistral 3, LightOnOCR: a Pixtral tower, which takes images of any size, and merged patches."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from otprune.hf.families.packed import PixtralTower
from otprune.hf.families.tower import Tower
from otprune.hf.families.towered import TowerFamily, blocks_of


class Pixtral(TowerFamily):
    """Families whose processor gives ``image_sizes`` in pixels, in multiples of a merged patch."""

    def _tower(self) -> Tower | None:
        # LightOnOCR takes the last hidden state, Mistral 3 one that its configuration names.
        tower = getattr(self.base, "vision_encoder", None)
        tower = self.base.vision_tower if tower is None else tower
        layer = getattr(self.model.config, "vision_feature_layer", -1)
        known = isinstance(layer, int) and tower.config.model_type == "pixtral"
        return PixtralTower(tower, layer) if known else None

    @property
    def merges(self) -> bool:
        """Whether a token is made of several patches; their sizes are then needed."""
        return True

    def patches_of(self, part: int, n: int, inputs: Mapping[str, Any]) -> Int64[Tensor, "n u"]:
        """Return the patches of each token of an image."""
        config = self.model.config
        side = int(config.vision_config.patch_size)
        rows, columns = (int(size) // side for size in inputs["image_sizes"][part])
        return blocks_of(rows, columns, int(config.spatial_merge_size))

    def grid(self, part: int, n: int, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return rows and columns of the merged patches of an image."""
        return size_grid(self.model.config, part, n, inputs)


def size_grid(config: Any, part: int, n: int, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return rows and columns that an image's size in pixels gives; None if not of ``n`` tokens."""
    sizes = inputs.get("image_sizes")
    if sizes is None or part >= len(sizes):
        return None
    side = int(config.vision_config.patch_size) * int(getattr(config, "spatial_merge_size", 1))
    rows, columns = (int(size) // side for size in sizes[part])
    return (rows, columns) if rows * columns == n else None
