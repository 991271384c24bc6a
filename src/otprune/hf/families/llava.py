"""LLaVA-1.5 and others whose tower gives each image, or tile, as one square raster of patches."""

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from otprune.hf.families.family import EncodedImages, Family, Modality, UnsupportedModelError
from otprune.hf.families.pixtral import size_grid
from otprune.hf.families.tower import TOWERS, TowerSignals

_INTERPOLATED = {"interpolate_pos_encoding": True}


class SquareFamily(Family):
    """A family whose pieces are square rasters, row by row."""

    def grid(self, part: int, n: int, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return the square's side twice; None for another number of tokens."""
        side = isqrt(n)
        return (side, side) if side * side == n else None


class Llava(SquareFamily):
    """LLaVA-1.5 and relatives; a CLIP, SigLIP or DINOv2 tower gives signals, others none."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        layer, tower = model.config.vision_feature_layer, self.base.vision_tower
        self._tower: TowerSignals | None = None
        if isinstance(layer, int) and tower.config.model_type in TOWERS:
            skips = model.config.vision_feature_select_strategy == "default"
            self._tower = TowerSignals(tower, layer, skips)

    @property
    def gives(self) -> frozenset[str]:
        """Signals of the vision encoder."""
        return frozenset() if self._tower is None else self._tower.gives | {"encode_at"}

    def encode(
        self,
        inputs: Mapping[str, Any],
        wanted: frozenset[str] = frozenset(),
        modality: Modality = "image",
    ) -> EncodedImages:
        """Return the visual tokens of all images, and signals of the vision encoder.

        Raises:
            UnsupportedModelError: signals of images that are encoded already.
        """
        if self._tower is None or not wanted or modality != "image":
            return super().encode(inputs, modality=modality)
        with self._tower.recorded() as states:
            encoded = super().encode(inputs)
        if not states:
            raise UnsupportedModelError(
                f"{', '.join(sorted(wanted))} come from the vision encoder: give pixel_values, not "
                "images that are encoded already"
            )
        found: dict[str, Any] = self._tower.of(states, wanted - {"encode_at"})
        if "encode_at" in wanted:
            found["encode_at"] = [_Resized(self, one[None]) for one in inputs["pixel_values"]]
        pieces = range(len(encoded.parts))
        signals = [{name: value[i] for name, value in found.items()} for i in pieces]
        return replace(encoded, signals=signals)

    def encode_at(self, pixels: Tensor, rows: int, columns: int) -> Tensor:
        """Return the tokens of an image down-sampled to ``rows`` x ``columns`` patches, [r * c, d].

        Pixels are resized (bicubic, antialiased); position embeddings are interpolated by the
        tower's own code for other sizes.

        Args:
            pixels: of one image, [1 3 s s].
            rows: of patches.
            columns: of patches.
        """
        patch = int(self.model.config.vision_config.patch_size)
        small = torch.nn.functional.interpolate(
            pixels.float(), (rows * patch, columns * patch), mode="bicubic", antialias=True,
            align_corners=False,
        ).to(pixels.dtype)  # fmt: skip
        # DINOv2 interpolates without being told.
        told = {} if self.base.vision_tower.config.model_type == "dinov2" else _INTERPOLATED
        with torch.no_grad():
            output = self.base.get_image_features(pixel_values=small, return_dict=True, **told)
        return self.parts(output)[0]

    def project(self, features: Tensor) -> Tensor:
        """Apply the projector to features [n c]."""
        projector: Any = self.base.multi_modal_projector
        weight = next(projector.parameters())
        return projector(features.to(weight.device, weight.dtype)[None])[0]

    @property
    def projects(self) -> bool:
        """Whether `project` can be used: where the projector works on each patch alone."""
        return self._tower is not None

    def grid(self, part: int, n: int, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return rows and columns of patches: a square, or what ``image_sizes`` say."""
        if inputs.get("image_sizes") is None:
            return super().grid(part, n, inputs)
        return size_grid(self.model.config, part, n, inputs)


class _Resized:
    """Encodes an image again at a lower resolution."""

    def __init__(self, family: Llava, pixels: Tensor) -> None:
        self.family, self.pixels = family, pixels

    def __call__(self, rows: int, columns: int) -> Tensor:
        """Return the tokens of rows x columns patches, [r * c, d]."""
        return self.family.encode_at(self.pixels, rows, columns)
