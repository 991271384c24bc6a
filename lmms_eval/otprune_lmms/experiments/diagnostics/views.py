"""Where an image's visual tokens lie in what the model sees of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llava.images.layouts import get_anyres_image_grid_shape
from llava.model.visual_tokens import TokenLayout, token_layout


@dataclass(frozen=True)
class View:
    """A picture cut into patches.

    Attributes:
        name: for titles.
        pixels: [h w 3] in [0, 1]; sides are multiples of those of ``tokens``.
        tokens: number of the token of each patch, [rows columns]; -1 where a patch has none.
    """

    name: str
    pixels: np.ndarray
    tokens: np.ndarray

    def mask(self, kept: np.ndarray) -> np.ndarray:
        """Return which patches' tokens are among the kept ones, [rows columns]."""
        return np.isin(self.tokens, kept) & (self.tokens >= 0)


def views_of(model: Any, processor: Any, pixels: Tensor, size: tuple[int, int]) -> list[View]:
    """Return what the model sees of an image: one view of a single tile, two of several tiles.

    Under anyres the first is the whole image in one tile, the second the raster of the others.
    Patches that the merge cuts off have no token; newline tokens and CLS have no patch.

    Args:
        model: the model.
        processor: its image processor.
        pixels: of one image as `process_images` returns them, [3 s s] or [t 3 s s].
        size: width and height of the image in pixels.
    """
    tower = model.get_vision_tower()
    side = tower.num_patches_per_side
    extra = int(tower.select_feature == "cls_patch")
    tiles = 1 if pixels.ndim == 3 else len(pixels)
    per_tile = side * side + extra
    layout = _layout(model, pixels, size, tiles, per_tile)
    numbers = np.full(tiles * per_tile, -1)
    source = layout.source.numpy()
    numbers[source[source >= 0]] = np.flatnonzero(source >= 0)
    # CLS, where it is a token, comes before the patches.
    patches = numbers.reshape(tiles, per_tile)[:, extra:].reshape(tiles, side, side)
    seen = _colours(pixels.reshape(tiles, *pixels.shape[-3:]), processor, side)
    if tiles == 1:
        return [View("as the model sees it", seen[0], patches[0])]
    wide, high = _shape(model, size, tiles - 1)
    return [
        View("whole image, one tile", seen[0], patches[0]),
        View(
            f"{high} x {wide} tiles",
            _raster(seen[1:], high, wide),
            _raster(patches[1:], high, wide),
        ),
    ]


def _layout(
    model: Any, pixels: Tensor, size: tuple[int, int], tiles: int, per_tile: int
) -> TokenLayout:
    tower = model.get_vision_tower()
    if pixels.ndim == 3:
        return TokenLayout(torch.arange(per_tile), None)
    side = tower.num_patches_per_side
    return token_layout(model.config, tiles, size, side, tower.image_processor.side, per_tile)


def _shape(model: Any, size: tuple[int, int], tiles: int) -> tuple[int, int]:
    """Return how many tiles lie side by side, and how many on top of each other."""
    tower, pinpoints = model.get_vision_tower(), getattr(model.config, "image_grid_pinpoints", None)
    if pinpoints is None:
        return tiles, 1
    return get_anyres_image_grid_shape(size, pinpoints, tower.image_processor.side)


def _colours(tiles: Tensor, processor: Any, side: int) -> np.ndarray:
    """Return pixel values as colours [t h w 3], cut to whole patches."""
    mean = np.array(processor.image_mean)[:, None, None]
    std = np.array(processor.image_std)[:, None, None]
    seen = tiles.float().cpu().numpy() * std + mean
    whole = seen.shape[-1] // side * side
    return seen.transpose(0, 2, 3, 1).clip(0, 1)[:, :whole, :whole]


def _raster(tiles: np.ndarray, high: int, wide: int) -> np.ndarray:
    """Return tiles [high * wide, rows, columns, ...] as one raster."""
    rows = [np.concatenate(list(tiles[y * wide : (y + 1) * wide]), axis=1) for y in range(high)]
    return np.concatenate(rows, axis=0)
