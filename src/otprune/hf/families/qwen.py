"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL, GLM-4V and relatives: positions of several axes, any image size.

Positions are computed for the whole image and then gathered, so a kept token keeps its place.
Qwen3-VL's vision encoder also gives features for the first decoder layers ("deepstack"); the same
rows of them are kept, and tokens may be dropped inside the language model only after these layers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers.utils.generic import ModelOutput

from otprune.hf.families.packed import QwenTower
from otprune.hf.families.tower import Tower
from otprune.hf.families.towered import TowerFamily

_TOWERS = frozenset(
    ("glm4v_vision", "qwen2_vl_vision", "qwen2_5_vl_vision")
    + ("qwen3_vl_vision", "qwen3_vl_moe_vision", "qwen3_5_vision")
)
"""Types of encoders whose last block `QwenTower` computes as they do."""


class QwenVL(TowerFamily):
    """Families whose processor gives ``image_grid_thw``."""

    def _tower(self) -> Tower | None:
        tower = getattr(self.base, "visual", None)
        known = tower is not None and tower.config.model_type in _TOWERS
        return QwenTower(tower) if known else None

    @property
    def merges(self) -> bool:
        """Whether a token is made of several patches: 2 x 2 in all releases."""
        return True

    def patches_of(self, part: int, n: int, inputs: Mapping[str, Any]) -> Int64[Tensor, "n u"]:
        """Return the patches of each token, which follow each other in these encoders."""
        unit = int(self.base.visual.spatial_merge_size) ** 2
        return torch.arange(n * unit).view(n, unit)

    def grid(self, part: int, n: int, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return rows and columns of the merged patches of an image."""
        return self._raster(inputs.get("image_grid_thw"), part, n)

    def frames(self, part: int, n: int, inputs: Mapping[str, Any]) -> list[int] | None:
        """Return equal numbers: a video's grid says how many frames, or pairs of frames, it has."""
        grids = inputs.get("video_grid_thw")
        if grids is None or part >= len(grids):
            return None
        count = int(grids[part][0])
        return [n // count] * count if n % count == 0 else None

    def frame_grid(self, part: int, n: int, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return rows and columns of the merged patches of a frame."""
        return self._raster(inputs.get("video_grid_thw"), part, n)

    def _raster(self, grids: Tensor | None, part: int, n: int) -> tuple[int, int] | None:
        if grids is None or part >= len(grids):
            return None
        _, rows, columns = (int(size) for size in grids[part])
        # Patches are merged in squares; how large these are follows from the number of tokens.
        for merge in (1, 2, 3, 4):
            if rows % merge == columns % merge == 0 and (rows // merge) * (columns // merge) == n:
                return rows // merge, columns // merge
        return None


class Qwen3VL(QwenVL):
    """Qwen3-VL and its mixture of experts."""

    @property
    def first_layer(self) -> int:
        """The layer after those that deepstack features are added to."""
        vision = self.model.config.vision_config
        return max(1, len(vision.deepstack_visual_indexes))

    @property
    def side_features(self) -> str | None:
        """Deepstack features."""
        return "deepstack features"

    def take(
        self, output: ModelOutput, sizes: Sequence[int], kept: Sequence[Int64[Tensor, " k"]]
    ) -> ModelOutput:
        """Return the output with the kept rows of the deepstack features of each unit."""
        layers = []
        for layer in self.beside(output):
            pairs = zip(layer.split(list(sizes)), kept, strict=True)
            layers.append([rows[index.to(rows.device)] for rows, index in pairs])
        return self.with_beside(output, layers)

    def beside(self, output: ModelOutput) -> tuple[Float[Tensor, "n d"], ...]:
        """Return the deepstack features of each layer that has some."""
        return tuple(torch.cat(list(layer)) for layer in output["deepstack_features"])

    def with_beside(
        self, output: ModelOutput, rows: Sequence[Sequence[Float[Tensor, "n d"]]]
    ) -> ModelOutput:
        """Return the output with other deepstack features."""
        layers = [list(layer) for layer in rows]
        return type(output)(**{**output, "deepstack_features": layers})
