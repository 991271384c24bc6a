"""From patch features of tiles to the visual tokens of an image."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from llava.images.layouts import Size, get_anyres_image_grid_shape
from llava.model.multimodal_encoder.tower import TowerOutput
from otprune import Signals
from otprune.pruning import ImageTokens

NEWLINE = -1
"""Source of an ``image_newline`` token, which ends a row of patches."""


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """Where each visual token of an image comes from.

    Attributes:
        source: position in the tiles' patches laid end to end, or `NEWLINE`; [n] on the CPU.
        grid: rows and columns if the tokens are one raster.
    """

    source: Int64[Tensor, " n"]
    grid: tuple[int, int] | None


def token_layout(
    config: Any, tiles: int, size: Size | None, side: int, tile_pixels: int, per_tile: int
) -> TokenLayout:
    """Return the layout of an image of several tiles.

    With ``mm_patch_merge_type`` "flat" all patches follow each other, tile by tile. With "spatial"
    the first tile, which shows the whole image, comes first, and the others form one raster; with
    "spatial_unpad" the raster's padding is cut off and each row ends in a newline token.

    Args:
        config: the model's configuration.
        tiles: number of tiles.
        size: width and height of the image in pixels.
        side: patches along a side of a tile.
        tile_pixels: pixels along a side of a tile.
        per_tile: features of a tile: side² patches, and the CLS token if it is used.

    Raises:
        ValueError: an unknown merge type; a raster of another number of tiles; no ``size``.
    """
    merge = getattr(config, "mm_patch_merge_type", "flat")
    if merge not in ("flat", "spatial", "spatial_unpad"):
        raise ValueError(
            f"mm_patch_merge_type must be flat, spatial or spatial_unpad, got {merge!r}"
        )
    if merge == "flat":
        grid = (side, side) if tiles == 1 and per_tile == side * side else None
        return TokenLayout(torch.arange(tiles * per_tile), grid)
    unpad = merge == "spatial_unpad"
    if tiles == 1:
        newline = [torch.tensor([NEWLINE])] if unpad else []
        return TokenLayout(torch.cat([torch.arange(per_tile), *newline]), None)
    if per_tile != side * side:
        raise ValueError("mm_patch_merge_type spatial needs mm_vision_select_feature patch")
    if getattr(config, "image_aspect_ratio", None) != "anyres" or size is None:
        raise ValueError("several tiles of an image need image_aspect_ratio anyres and image_sizes")
    wide, high = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, tile_pixels)
    if tiles != wide * high + 1:
        raise ValueError(
            f"an image of {size[0]} x {size[1]} has 1 + {high} x {wide} tiles, got {tiles}: "
            "image_sizes must be (width, height) of the images that were preprocessed"
        )
    return TokenLayout(_spatial(wide, high, side, size, unpad), None)


@lru_cache(maxsize=4096)
@torch.inference_mode(mode=False)
def _spatial(wide: int, high: int, side: int, size: Size, unpad: bool) -> Tensor:
    # Cached for later calls, some of which record gradients, so not an inference tensor.
    base = torch.arange(side * side)
    tiles = torch.arange(side * side, (wide * high + 1) * side * side)
    raster = tiles.view(high, wide, side, side).transpose(1, 2).reshape(high * side, wide * side)
    if unpad:
        raster = unpad_image(raster[None], size)[0]
        ends = torch.full((len(raster), 1), NEWLINE)
        raster = torch.cat([raster, ends], dim=1)
    return torch.cat([base, raster.flatten()])


def unpad_image(tensor: Tensor, original_size: Size) -> Tensor:
    """Return a raster [c h w] without the rows or columns that hold padding only.

    ``original_size`` is the image's width and height in pixels. Both sides are cut by the same
    amount, so a row or column of padding may remain, as in the original.
    """
    width, height = original_size
    rows, columns = tensor.shape[1:]
    if width / height > columns / rows:
        margin = (rows - int(height * (columns / width))) // 2
        return tensor[:, margin : rows - margin]
    margin = (columns - int(width * (rows / height))) // 2
    return tensor[:, :, margin : columns - margin]


def gather_tokens(
    layout: TokenLayout,
    projected: Tensor,
    newline: Tensor | None,
    output: TowerOutput,
    padding: Tensor | None = None,
) -> ImageTokens:
    """Return the tokens of one image from the features [t n d] of its tiles.

    Rows are selected, nothing is computed. ``output`` holds the signals of the same tiles,
    ``padding`` which of their patches are padding, [t p]; None if that is not known.

    Raises:
        ValueError: the layout has newline tokens but the model has no ``image_newline``.
    """
    ends = layout.source == NEWLINE
    has_ends = bool(ends.any())
    if has_ends and newline is None:
        raise ValueError(
            "mm_patch_merge_type spatial_unpad needs image_newline, the model has none"
        )
    pool = projected.flatten(0, 1)
    if has_ends and newline is not None:
        pool = torch.cat([pool, newline.to(pool)[None]])
    tokens = _take(pool, layout.source)
    known: dict[str, Any] = {}
    for name, value in output.signals.items():
        if name == "cls_features":
            known[name] = value
        elif name == "cls_attention":
            flat = value.transpose(1, 2).flatten(0, 1)
            known[name] = _padded_take(flat, layout.source, has_ends).T
        else:
            known[name] = _padded_take(value.flatten(0, 1), layout.source, has_ends)
    if padding is not None:
        # The CLS token, where it is among the features, is the first of its tile.
        padding = torch.nn.functional.pad(padding, (projected.shape[1] - padding.shape[1], 0))
        known["padding"] = _padded_take(padding.flatten(), layout.source, has_ends)
    if len(projected) > 1 or has_ends:
        known["tiles"] = layout.source.div(projected.shape[1], rounding_mode="floor")
    return ImageTokens(tokens, ends if has_ends else None, Signals(grid=layout.grid, **known))


def _padded_take(pool: Tensor, source: Tensor, has_ends: bool) -> Tensor:
    if has_ends:
        pool = torch.cat([pool, pool.new_zeros(1, *pool.shape[1:])])
    return _take(pool, source)


def _take(pool: Tensor, source: Tensor) -> Tensor:
    # NEWLINE is -1, the last row of the pool.
    return pool[source.to(pool.device)]
