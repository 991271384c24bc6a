"""Families whose vision encoder gives signals: from patches of tiles to tokens of pieces.

Where a family merges patches into a token, its signals are means over the token's patches: so the
released codes for Qwen2.5-VL, of HoloV for attention, of VisionZip for attention and keys, and of
MMTok for features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from otprune.hf.families.family import EncodedImages, Family, Modality, UnsupportedModelError
from otprune.hf.families.tower import Tower, floating_dtype
from otprune.signals import TOKEN_AXIS

_INTERPOLATED = {"interpolate_pos_encoding": True}


class TowerFamily(Family):
    """A family with a vision encoder that is known; one piece for each tile or image of it.

    Attributes:
        tower: the encoder; None where it is of a type that is not known.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.tower = self._tower()

    def _tower(self) -> Tower | None:
        """Return the encoder if it is known."""
        raise NotImplementedError

    @property
    def merges(self) -> bool:
        """Whether a token is made of several patches."""
        return False

    @property
    def resizes(self) -> bool:
        """Whether an image can be encoded again at a lower resolution."""
        return False

    @property
    def gives(self) -> frozenset[str]:
        """Names of the signals."""
        if self.tower is None:
            return frozenset()
        # A CLS token cannot go through a projector that takes several patches at once.
        lost = {"cls_features"} if self.merges else set()
        return self.tower.gives - lost | ({"encode_at"} if self.resizes else set())

    def why_not(self, names: Sequence[str]) -> str:
        """Return why signals are not given: no CLS token, as far as it is that."""
        if self.tower is None or self.tower.has_cls or not any("cls" in name for name in names):
            return ""
        return (
            ": its vision encoder has no CLS token, and the method's authors do not say what takes "
            "its place"
        )

    @property
    def projects(self) -> bool:
        """Whether `project` can be used: where the projector works on each patch alone."""
        return self.tower is not None and not self.merges

    @property
    def projector(self) -> Any:
        """The module between vision encoder and language model."""
        return self.base.multi_modal_projector

    def project(self, features: Tensor) -> Tensor:
        """Apply the projector to features [n c] of single patches."""
        if self.tower is None or self.merges:
            return super().project(features)
        projector = self.projector
        return projector(features.to(floating_dtype(projector))[None])[0]

    def encode(
        self,
        inputs: Mapping[str, Any],
        wanted: frozenset[str] = frozenset(),
        modality: Modality = "image",
    ) -> EncodedImages:
        """Return the visual tokens of all images, and signals of the vision encoder.

        Raises:
            UnsupportedModelError: signals of videos; of images that are encoded already; of an
                encoder that runs without hooks.
        """
        if self.tower is None or not wanted:
            return super().encode(inputs, modality=modality)
        names = ", ".join(sorted(wanted))
        if modality != "image":
            raise UnsupportedModelError(
                f"{self.name} gives {names} of images only, got videos: take a method that needs "
                "the tokens alone"
            )
        with self.tower.recorded() as record:
            encoded = super().encode(inputs)
        if not record:
            raise UnsupportedModelError(
                f"{names} come from the vision encoder while it runs: give pixel_values, not "
                "images that are encoded already, and an encoder that is not compiled"
            )
        found = self.tower.of(record, wanted - {"encode_at"})
        signals = self.placed(found, encoded, inputs)
        if "encode_at" in wanted:
            images = self.whole_images(inputs)
            signals = [
                {**one, "encode_at": _Resized(self, image)}
                for one, image in zip(signals, images, strict=True)
            ]
        return replace(encoded, signals=signals)

    def placed(
        self,
        found: Mapping[str, Sequence[Tensor]],
        encoded: EncodedImages,
        inputs: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """Return the signals of the tokens of each piece.

        Args:
            found: signals of the patches of each tile or image, by name.
            encoded: the tokens.
            inputs: what the caller gives the model.
        """
        signals: list[dict[str, Any]] = []
        for part, tokens in enumerate(encoded.parts):
            of = self.patches_of(part, len(tokens), inputs) if self.merges else None
            signals.append({name: _merged(name, value[part], of) for name, value in found.items()})
        return signals

    def patches_of(self, part: int, n: int, inputs: Mapping[str, Any]) -> Int64[Tensor, "n u"]:
        """Return the numbers of the patches that each of the ``n`` tokens of a piece is made of."""
        raise NotImplementedError

    def whole_images(self, inputs: Mapping[str, Any]) -> Sequence[Tensor]:
        """Return the pixels of each piece as one tile, [1 3 s s], to be encoded at other sizes."""
        return [one[None] for one in inputs["pixel_values"]]

    def encode_at(self, pixels: Tensor, rows: int, columns: int) -> Tensor:
        """Return the tokens of an image down-sampled to ``rows`` x ``columns`` patches, [r * c, d].

        Pixels are resized (bicubic, antialiased); position embeddings are interpolated by the
        tower's own code for other sizes.

        Args:
            pixels: of one image, [1 3 s s].
            rows: of patches.
            columns: of patches.
        """
        if self.tower is None:
            raise UnsupportedModelError(f"the vision encoder of {self.name} is not known")
        if any(one.is_meta for one in self.tower.tower.parameters()):
            raise UnsupportedModelError(
                f"the vision encoder of {self.name} must not be offloaded for methods that encode "
                "an image again at another size: position embeddings are read outside of modules"
            )
        patch = int(self.model.config.vision_config.patch_size)
        small = torch.nn.functional.interpolate(
            pixels.float(), (rows * patch, columns * patch), mode="bicubic", antialias=True,
            align_corners=False,
        ).to(pixels.dtype)  # fmt: skip
        tower = self.tower.tower
        # DINOv2 interpolates without being told.
        told = {} if tower.config.model_type == "dinov2" else _INTERPOLATED
        with torch.no_grad(), self.tower.recorded() as record:
            tower(small, **told)
            return self.project(self.tower.of(record, frozenset({"features"}))["features"][0])


class _Resized:
    """Encodes an image again at a lower resolution."""

    def __init__(self, family: TowerFamily, pixels: Tensor) -> None:
        self.family, self.pixels = family, pixels

    def __call__(self, rows: int, columns: int) -> Tensor:
        """Return the tokens of rows x columns patches, [r * c, d]."""
        return self.family.encode_at(self.pixels, rows, columns)


def _merged(name: str, values: Tensor, patches: Int64[Tensor, "n u"] | None) -> Tensor:
    """Return a signal of tokens from that of their patches: the mean over each token's patches."""
    if patches is None:
        return values
    axis = TOKEN_AXIS[name]
    taken = values.index_select(axis, patches.flatten().to(values.device))
    return taken.unflatten(axis, tuple(patches.shape)).float().mean(axis + 1).to(values.dtype)


def blocks_of(rows: int, columns: int, size: int) -> Int64[Tensor, "n u"]:
    """Return the numbers of a raster's patches in squares of ``size`` x ``size``, row by row."""
    raster = torch.arange(rows * columns).view(rows // size, size, columns // size, size)
    return raster.transpose(1, 2).reshape(-1, size * size)
