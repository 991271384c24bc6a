"""From pixel values to visual tokens: tower, projector, merge."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llava.images.layouts import Size
from llava.images.padding import padding_patches
from llava.model.devices import execution_device, fetched
from llava.model.multimodal_encoder.tower import TOWER_SIGNALS, VisionTower
from llava.model.text import TextTools
from llava.model.visual_tokens import TokenLayout, gather_tokens, token_layout
from otprune.pruning import ImageTokens


def project(model: Any, features: Tensor) -> Tensor:
    """Return projected features, [... n c] to [... n d]."""
    projector = model.mm_projector
    weight = next(projector.parameters(), None)
    if weight is None:
        return projector(features)
    return projector(features.to(execution_device(projector), weight.dtype))


def encode_visual(
    model: Any,
    images: Tensor | Sequence[Tensor],
    image_sizes: Sequence[Size] | None,
    signals: frozenset[str],
    tools: TextTools | None,
    aspects: Sequence[str | None] | None = None,
) -> list[ImageTokens]:
    """Return the visual tokens of each image; see `LlavaMetaForCausalLM.encode_visual`.

    ``model`` is the decoder with vision tower and projector.
    """
    if len(images) == 0:
        return []
    single = isinstance(images, Tensor) and images.ndim == 4
    groups = [image[None] if image.ndim == 3 else image for image in images]
    if image_sizes is not None and len(image_sizes) != len(groups):
        raise ValueError(
            f"image_sizes must have one entry for each of {len(groups)} images, "
            f"got {len(image_sizes)}"
        )
    tower: VisionTower = model.vision_tower
    tiles = torch.cat([group.to(tower.device, tower.dtype) for group in groups])
    wanted = signals & TOWER_SIGNALS
    output = tower.encode(tiles, wanted)
    projected = project(model, output.features)
    if "clip_patches" in signals:
        if tools is None:
            raise ValueError("clip_patches needs a model of load_pretrained_model")
        patches = tools.clip_patches(tower, output.features)
        output = replace(output, signals={**output.signals, "clip_patches": patches})
    newline = fetched(model, "image_newline")
    found, first = [], 0
    for i, group in enumerate(groups):
        last = first + len(group)
        size = None if image_sizes is None else (int(image_sizes[i][0]), int(image_sizes[i][1]))
        layout = _layout(model.config, tower, len(group), single, size)
        aspect = None if aspects is None else aspects[i]
        padding = padding_patches(
            model.config, tower.image_processor, size, len(group), tower.config.patch_size, aspect
        )
        one = gather_tokens(
            layout, projected[first:last], newline, output.tiles(first, last), padding
        )
        if "encode_at" in signals:
            known = replace(one.signals, encode_at=_Resized(model, tiles[first]))
            one = replace(one, signals=known)
        found.append(one)
        first = last
    return found


def _layout(
    config: Any, tower: VisionTower, tiles: int, single: bool, size: Size | None
) -> TokenLayout:
    side = tower.num_patches_per_side
    per_tile = side * side + (tower.select_feature == "cls_patch")
    if single:
        # Images of one tile each, given as one tensor, are not merged, whatever the merge type.
        return TokenLayout(torch.arange(per_tile), (side, side) if per_tile == side**2 else None)
    return token_layout(config, tiles, size, side, tower.image_processor.side, per_tile)


class _Resized:
    """Encodes an image again at a lower resolution; of several tiles the first, the whole image.

    Keeps the tile's pixels, which take a few times the memory of a small model's tokens.
    """

    def __init__(self, model: Any, tile: Tensor) -> None:
        # A copy, so that the rest of the batch of tiles can be freed.
        self.model, self.tile = model, tile.clone()

    def __call__(self, rows: int, columns: int) -> Tensor:
        """Return the tokens of rows x columns patches, [r * c, d]."""
        features = self.model.vision_tower.features_at(self.tile[None], rows, columns)
        return project(self.model, features)[0]
