"""Mistral 3, LightOnOCR: a Pixtral tower, which takes images of any size, and merged patches."""

from collections.abc import Mapping
from typing import Any

from otprune.hf.families.family import Family


class Pixtral(Family):
    """Families whose processor gives ``image_sizes`` in pixels, in multiples of a merged patch."""

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
