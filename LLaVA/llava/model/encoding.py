"""From pixel values to visual tokens: tower, projector, merge."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llava.images.layouts import Size
from llava.model.devices import execution_device, fetched
from llava.model.multimodal_encoder.tower import TOWER_SIGNALS, TowerOutput, VisionTower
from llava.model.visual_tokens import ImageTokens, TokenLayout, gather_tokens, token_layout


def project(model: Any, output: TowerOutput) -> Tensor:
    """Return the projected features of a batch of tiles, [b n d]."""
    projector = model.mm_projector
    weight = next(projector.parameters(), None)
    if weight is None:
        return projector(output.features)
    return projector(output.features.to(execution_device(projector), weight.dtype))


def encode_visual(
    model: Any,
    images: Tensor | Sequence[Tensor],
    image_sizes: Sequence[Size] | None,
    signals: frozenset[str],
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
    output = tower.encode(tiles, signals & TOWER_SIGNALS)
    projected = project(model, output)
    newline = fetched(model, "image_newline")
    found, first = [], 0
    for i, group in enumerate(groups):
        last = first + len(group)
        size = None if image_sizes is None else image_sizes[i]
        layout = _layout(model.config, tower, len(group), single, size)
        found.append(
            gather_tokens(layout, projected[first:last], newline, output.tiles(first, last))
        )
        first = last
    return found


def _layout(
    config: Any, tower: VisionTower, tiles: int, single: bool, size: Size | None
) -> TokenLayout:
    side = tower.num_patches_per_side
    per_tile = side * side + (tower.select_feature == "cls_patch")
    if single:
        # One tile an image, given as one tensor, is never merged, whatever the merge type.
        return TokenLayout(torch.arange(per_tile), (side, side) if per_tile == side**2 else None)
    pixels = tower.image_processor.side
    whole = None if size is None else (int(size[0]), int(size[1]))
    return token_layout(config, tiles, whole, side, pixels, per_tile)
