"""Which patches of an image's tiles show nothing but the padding around the image."""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from llava.images.layouts import PLAIN, Size, fitted_size, get_anyres_image_grid_shape
from llava.images.processor import ImageProcessor


class _Frame(NamedTuple):
    """How a square becomes a tile: scaled to ``scaled`` pixels, its middle ``side`` pixels kept."""

    side: int
    scaled: int
    patch: int


def padding_patches(
    config: Any,
    processor: ImageProcessor,
    size: Size | None,
    tiles: int,
    patch: int,
    aspect: str | None = None,
) -> Bool[Tensor, "t p"] | None:
    """Return which patches of an image that `process_images` made are padding only, on the CPU.

    A pixel is padding if its middle lies outside the image, and a patch is if all its pixels are.
    The filter that resamples an image reaches beyond its edge, so what counts as padding there may
    hold some of the image.

    Args:
        config: the model's configuration; its ``image_aspect_ratio`` says how images are padded.
        processor: what made the tiles.
        size: width and height of the image in pixels.
        tiles: number of its tiles.
        patch: pixels along a side of a patch.
        aspect: the ``image_aspect_ratio`` of this image, if not that of ``config``.

    Returns:
        A row for each tile, its patches in raster order. None if it is not known: without ``size``,
        or where the image has another number of tiles than ``config`` makes of it.
    """
    if size is None:
        return None
    ratio = aspect or getattr(config, "image_aspect_ratio", None)
    exact = processor.fit == "exact"
    scaled = processor.side if exact else processor.resize_to or processor.side
    frame = _Frame(processor.side, scaled, patch)
    pinpoints = getattr(config, "image_grid_pinpoints", None)
    if ratio == "anyres" and tiles > 1 and pinpoints is not None:
        grid = get_anyres_image_grid_shape(size, pinpoints, frame.side)
        return _of_grid(size, grid, frame) if tiles == grid[0] * grid[1] + 1 else None
    if tiles != 1 or ratio not in (*PLAIN, "pad"):
        return None
    return _of_square(size, frame) if ratio == "pad" else _none(frame)[None]


# Cached for later calls, some of which record gradients, so none is an inference tensor.
@lru_cache(maxsize=4096)
@torch.inference_mode(mode=False)
def _of_square(size: Size, frame: _Frame) -> Tensor:
    """Return the patches outside of an image in the middle of a square; [1 p]."""
    side = max(size)
    return _outside(side, _middle(size[0], side), _middle(size[1], side), frame)[None]


@lru_cache(maxsize=4096)
@torch.inference_mode(mode=False)
def _of_grid(size: Size, grid: Size, frame: _Frame) -> Tensor:
    """Return the patches outside of an image in the middle of a grid of tiles; [1 + w * h, p].

    The first tile is the whole image without padding.
    """
    side, (wide, high) = frame.side, grid
    width, height = fitted_size(size, (wide * side, high * side))
    across, down = _middle(width, wide * side), _middle(height, high * side)
    found = [
        _outside(side, _seen_from(across, x * side), _seen_from(down, y * side), frame)
        for y in range(high)
        for x in range(wide)
    ]
    return torch.stack([_none(frame), *found])


def _none(frame: _Frame) -> Tensor:
    return torch.zeros((frame.side // frame.patch) ** 2, dtype=torch.bool)


def _middle(length: int, whole: int) -> tuple[int, int]:
    """Return where an image of this length begins and ends in the middle of a whole."""
    start = (whole - length) // 2
    return start, start + length


def _seen_from(span: tuple[int, int], origin: int) -> tuple[int, int]:
    return span[0] - origin, span[1] - origin


def _outside(square: int, across: tuple[int, int], down: tuple[int, int], frame: _Frame) -> Tensor:
    """Return which patches of a square of pixels lie outside a box in it; [p]."""
    columns, rows = (_beside(square, span, frame) for span in (across, down))
    return (rows[:, None] | columns[None]).flatten()


def _beside(square: int, span: tuple[int, int], frame: _Frame) -> Tensor:
    """Return which patches along one axis have no pixel whose middle is in a span of the square.

    The span counts as at least one pixel wide, so that something of every image is seen.
    """
    side, scaled, patch = frame
    # In whole numbers: lengths in the square times twice the scaled length.
    middles = (2 * torch.arange(side) + 1 + 2 * ((scaled - side) // 2)) * square
    centre = (span[0] + span[1]) * scaled
    start = min(2 * span[0] * scaled, centre - square)
    stop = max(2 * span[1] * scaled, centre + square)
    beside = (middles < start) | (middles >= stop)
    patches = side // patch
    return beside[: patches * patch].view(patches, patch).all(1)
