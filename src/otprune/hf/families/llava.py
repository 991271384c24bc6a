"""LLaVA-1.5 and others whose tower gives each image, or tile, as one square raster of patches."""

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from typing import Any

from torch import Tensor

from otprune.hf.families.family import EncodedImages, Family, Modality, UnsupportedModelError
from otprune.hf.families.pixtral import size_grid
from otprune.hf.families.tower import TowerSignals


class SquareFamily(Family):
    """A family whose pieces are square rasters, row by row."""

    def grid(self, part: int, n: int, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return the square's side twice; None for another number of tokens."""
        side = isqrt(n)
        return (side, side) if side * side == n else None


class Llava(SquareFamily):
    """LLaVA-1.5 and relatives; a CLIP or SigLIP tower gives signals, others (Pixtral) none."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        layer, tower = model.config.vision_feature_layer, self.base.vision_tower
        self._tower: TowerSignals | None = None
        kinds = ("clip_vision_model", "siglip_vision_model")
        if isinstance(layer, int) and tower.config.model_type in kinds:
            skips = model.config.vision_feature_select_strategy == "default"
            self._tower = TowerSignals(tower, layer, skips)

    @property
    def gives(self) -> frozenset[str]:
        """Signals of the vision encoder."""
        return frozenset() if self._tower is None else self._tower.gives

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
        found = self._tower.of(states, wanted)
        pieces = range(len(encoded.parts))
        signals = [{name: value[i] for name, value in found.items()} for i in pieces]
        return replace(encoded, signals=signals)

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
