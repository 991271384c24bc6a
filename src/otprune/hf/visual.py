"""Images and videos of a call: encoded, and divided into the units that have a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from transformers.utils.generic import ModelOutput

from otprune.hf.families import EncodedImages, Family, Modality, Unit
from otprune.pruning import ImageTokens
from otprune.signals import Signals

PIXELS: dict[Modality, tuple[str, ...]] = {
    "image": ("pixel_values", "pixel_values_images", "image_patches"),
    "video": ("pixel_values_videos",),
}
"""Arguments by which a call brings pixels."""

ENCODED = "mm_encoder_outputs"
"""The argument by which it brings images and videos that are encoded already."""


def modalities(inputs: Mapping[str, Any]) -> list[Modality]:
    """Return what a call brings."""
    encoded = inputs.get(ENCODED) or {}
    return [
        modality
        for modality, names in PIXELS.items()
        if encoded.get(modality) is not None or any(inputs.get(one) is not None for one in names)
    ]


@dataclass(frozen=True, slots=True)
class Units:
    """What of one modality has a budget.

    Attributes:
        modality: images or videos.
        encoded: all of them.
        images: tokens of each unit.
        places: for each unit the row and the columns of its placeholders.
    """

    modality: Modality
    encoded: EncodedImages
    images: list[ImageTokens]
    places: list[tuple[int, Int64[Tensor, " n"]]]

    def output(
        self, family: Family, tokens: Sequence[Tensor], kept: Sequence[Int64[Tensor, " k"]]
    ) -> ModelOutput:
        """Return the encoder's output with the kept tokens of each unit."""
        output = family.with_tokens(self.encoded.output, tokens)
        return family.take(output, [len(image) for image in self.images], kept)


def units_of(
    family: Family,
    inputs: Mapping[str, Any],
    modality: Modality,
    unit: Unit,
    wanted: frozenset[str],
) -> Units:
    """Encode the images or the videos of a call.

    Args:
        family: the model.
        inputs: arguments of the call.
        modality: images or videos.
        unit: what one budget is for.
        wanted: names of the signals that methods need of the encoder.

    Raises:
        UnsupportedModelError: as `Family.encode`; frames of a video where they are not known.
        ValueError: not one placeholder for each token; one image's placeholders in two prompts.
    """
    encoded = family.encode(inputs, wanted, modality)
    rows, columns = _placeholders(family, inputs, modality, sum(encoded.sizes))
    pieces: Unit = family.parts_are if modality == "image" else "image"
    _check_rows(rows, encoded.sizes, pieces)
    if unit == "frame" and modality == "video":
        images = _frames(family, encoded, inputs)
    else:
        images = [
            family.image(encoded, parts, inputs) if modality == "image" else _clip(encoded, parts)
            for parts in _grouped(rows, columns, encoded.sizes, unit, pieces)
        ]
    return Units(modality, encoded, images, _places(rows, columns, images))


def units_from(
    family: Family,
    inputs: Mapping[str, Any],
    encoded: EncodedImages,
    images: Sequence[ImageTokens],
) -> Units:
    """Return images that were encoded before, each with a budget of its own.

    Args:
        family: the model.
        inputs: arguments of the call.
        encoded: all images.
        images: each of them, in the order of their placeholders.

    Raises:
        ValueError: not one placeholder for each token; one image's placeholders in two prompts.
    """
    sizes = [len(image) for image in images]
    rows, columns = _placeholders(family, inputs, "image", sum(sizes))
    _check_rows(rows, sizes, "image")
    return Units("image", encoded, list(images), _places(rows, columns, images))


def _placeholders(
    family: Family, inputs: Mapping[str, Any], modality: Modality, tokens: int
) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Return row and column of each placeholder."""
    placeholder = family.placeholder(modality)
    rows, columns = (inputs["input_ids"] == placeholder).cpu().nonzero().unbind(1)
    if len(rows) != tokens:
        raise ValueError(
            f"input_ids must have one placeholder (id {placeholder}) for each of the {tokens} "
            f"visual tokens of the {modality}s, got {len(rows)}"
        )
    return rows, columns


def _places(
    rows: Int64[Tensor, " n"], columns: Int64[Tensor, " n"], images: Sequence[ImageTokens]
) -> list[tuple[int, Int64[Tensor, " n"]]]:
    """Return for each unit the row and the columns of its placeholders."""
    sizes = [len(image) for image in images]
    parts = zip(rows.split(sizes), columns.split(sizes), strict=True)
    return [(int(row[0]), column) for row, column in parts]


def _grouped(
    rows: Int64[Tensor, " n"],
    columns: Int64[Tensor, " n"],
    sizes: Sequence[int],
    unit: Unit,
    pieces: Unit,
) -> list[range]:
    """Return for each unit which pieces of the encoder's output it has.

    Args:
        rows: of all placeholders, in order.
        columns: likewise.
        sizes: tokens of each piece.
        unit: what one budget is for.
        pieces: what the pieces are.
    """
    if unit != "sample" and (pieces == "image" or unit == pieces):
        ends = list(range(1, len(sizes) + 1))
    else:
        # Pieces end where a prompt, or else a run of placeholders, ends.
        breaks: Bool[Tensor, " m"] = rows.diff() != 0
        if unit != "sample":
            breaks = breaks | (columns.diff() != 1)
        at = set((breaks.nonzero()[:, 0] + 1).tolist()) | {len(rows)}
        seen, ends = 0, []
        for number, size in enumerate(sizes, 1):
            seen += size
            if seen in at:
                ends.append(number)
    return [range(first, end) for first, end in zip([0, *ends[:-1]], ends, strict=True)]


def _clip(encoded: EncodedImages, parts: range) -> ImageTokens:
    """Return the tokens of whole videos; nothing is known about single ones."""
    return ImageTokens(torch.cat([encoded.parts[number] for number in parts]))


def _frames(family: Family, encoded: EncodedImages, inputs: Mapping[str, Any]) -> list[ImageTokens]:
    """Return the tokens of each frame of each video."""
    found = []
    for number, video in enumerate(encoded.parts):
        sizes = family.frames(number, len(video), inputs)
        if sizes is None:
            raise ValueError(
                f"unit must be image or sample for these videos, got 'frame': which tokens of "
                f"video {number} are a frame is not known in {family.name}"
            )
        for tokens in video.split(sizes):
            grid = family.frame_grid(number, len(tokens), inputs)
            found.append(ImageTokens(tokens, signals=Signals(grid=grid)))
    return found


def _check_rows(rows: Int64[Tensor, " n"], sizes: Sequence[int], pieces: Unit) -> None:
    """Raise ``ValueError`` where the placeholders of a piece are in two prompts."""
    for number, one in enumerate(rows.split(list(sizes))):
        if len(one) and int(one[0]) != int(one[-1]):
            raise ValueError(
                f"placeholders of {pieces} {number} must be in one prompt, got some in row "
                f"{int(one[0])} and some in row {int(one[-1])} of input_ids"
            )
