"""The tiles of an image: padded to a square, cut into a grid, or cropped."""

import ast
import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from llava.images.processor import ImageProcessor
from llava.images.reading import as_rgb
from llava.images.squares import expand2square

__all__ = [
    "Size",
    "divide_to_patches",
    "expand2square",
    "get_anyres_image_grid_shape",
    "process_anyres_image",
    "process_images",
    "resize_and_pad_image",
    "resolutions",
    "select_best_resolution",
]

Size = tuple[int, int]
"""Width and height, in PIL's order."""

PLAIN = (None, "square", "original")
"""Values of ``image_aspect_ratio`` under which nothing is padded."""


def process_images(
    images: Sequence[Image.Image], image_processor: ImageProcessor, model_cfg: Any
) -> Tensor | list[Tensor]:
    """Return the pixel values of images under the model's ``image_aspect_ratio``, float32.

    - "pad": the image in the middle of a square of the mean colour; [b 3 s s].
    - "anyres": the whole image resized to one tile, then the tiles of its best resolution in
      raster order (LLaVA-1.6); [b t 3 s s] if all have as many tiles, else a list of [t_i 3 s s].
    - none, "square", "original": shorter side scaled, middle cropped; [b 3 s s].

    Raises:
        ValueError: another ``image_aspect_ratio``, no images.
        ImageError: an image without pixels, whose message has its number; one too long and thin
            to be padded or scaled.
    """
    ratio = getattr(model_cfg, "image_aspect_ratio", None)
    if ratio not in (*PLAIN, "pad", "anyres"):
        raise ValueError(
            f"image_aspect_ratio must be pad, anyres, square or original, got {ratio!r}"
        )
    if len(images) == 0:
        raise ValueError("images must hold at least one image, got none")
    pictures = [as_rgb(image, f"image {i}") for i, image in enumerate(images)]
    if ratio == "pad":
        tiles = [image_processor.padded_tile(one) for one in pictures]
    elif ratio == "anyres":
        pinpoints = getattr(model_cfg, "image_grid_pinpoints", None)
        tiles = [process_anyres_image(one, image_processor, pinpoints) for one in pictures]
    else:
        tiles = [image_processor.tile(one) for one in pictures]
    if all(tile.shape == tiles[0].shape for tile in tiles):
        return torch.stack(tiles)
    return tiles


def process_anyres_image(
    image: Image.Image,
    processor: ImageProcessor,
    grid_pinpoints: str | Sequence[Sequence[int]] | None,
) -> Tensor:
    """Return the whole image as one tile, then the tiles of its best resolution: [t 3 s s]."""
    best = select_best_resolution(image.size, resolutions(grid_pinpoints))
    # The first tile is resized without regard to its aspect ratio.
    side = processor.size.get("shortest_edge", processor.side)
    whole = image.resize((side, side))
    cut = divide_to_patches(resize_and_pad_image(image, best), processor.crop_size["height"])
    return torch.stack([processor.tile(tile) for tile in [whole, *cut]])


def select_best_resolution(
    original_size: Size, possible_resolutions: Sequence[Sequence[int]]
) -> Size:
    """Return the resolution that keeps most of the image's pixels; ties go to the least padding.

    Raises:
        ValueError: there are no resolutions.
    """
    if len(possible_resolutions) == 0:
        raise ValueError("possible_resolutions must name at least one, got none")
    width, height = original_size
    best, most, least_waste = (0, 0), 0, math.inf
    for wide, high in possible_resolutions:
        scale = min(wide / width, high / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        waste = wide * high - kept
        if kept > most or (kept == most and waste < least_waste):
            best, most, least_waste = (wide, high), kept, waste
    return best


def resize_and_pad_image(image: Image.Image, target_resolution: Size) -> Image.Image:
    """Return the image as large as it fits, in the middle of a black canvas."""
    wide, high = target_resolution
    fitted = fitted_size(image.size, target_resolution)
    canvas = Image.new("RGB", (wide, high), (0, 0, 0))
    canvas.paste(image.resize(fitted), ((wide - fitted[0]) // 2, (high - fitted[1]) // 2))
    return canvas


def fitted_size(size: Size, target_resolution: Size) -> Size:
    """Return the size of an image that is as large as it fits."""
    width, height = size
    wide, high = target_resolution
    if wide / width < high / height:
        return wide, min(math.ceil(height * (wide / width)), high)
    return min(math.ceil(width * (high / height)), wide), high


def divide_to_patches(image: Image.Image, patch_size: int) -> list[Image.Image]:
    """Return square tiles in raster order."""
    width, height = image.size
    return [
        image.crop((left, top, left + patch_size, top + patch_size))
        for top in range(0, height, patch_size)
        for left in range(0, width, patch_size)
    ]


def get_anyres_image_grid_shape(
    image_size: Size, grid_pinpoints: str | Sequence[Sequence[int]], patch_size: int
) -> Size:
    """Return how many tiles wide and high the best resolution of an image is."""
    width, height = select_best_resolution(image_size, resolutions(grid_pinpoints))
    return width // patch_size, height // patch_size


def resolutions(grid_pinpoints: object) -> Sequence[Sequence[int]]:
    """Return the resolutions of ``image_grid_pinpoints``: pairs, or a text that is a list of pairs.

    Raises:
        ValueError: it is neither.
    """
    pairs = grid_pinpoints
    if isinstance(pairs, str):
        try:
            pairs = ast.literal_eval(pairs)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pairs = None
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(pair, list | tuple) and [type(one) for one in pair] == [int, int]
        for pair in pairs
    ):
        raise ValueError(
            f"image_grid_pinpoints must be a list of [width, height], got {grid_pinpoints!r:.80}"
        )
    if not pairs:
        raise ValueError("image_grid_pinpoints must name at least one resolution, got none")
    return pairs
