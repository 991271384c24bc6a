"""Images as models of transformers see them: their pixels, and the visual token of each patch."""

import inspect
from collections.abc import Mapping
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

from otprune.hf.families import Family
from otprune_lmms.models.protocol import ImageView

AS_SEEN = "as the model sees it"


def views_of(
    family: Family, image_processor: Any, inputs: Mapping[str, Tensor], tokens: int
) -> list[ImageView]:
    """Return what a model sees of one image, with the visual token of each patch.

    One view of an image that is encoded whole; otherwise one of each tile. Of LLaVA-NeXT's tiles
    that are put together there is one raster, with -1 at patches that are cut off with the padding.

    Args:
        family: the model.
        image_processor: says by which mean and deviation pixels were normalised.
        inputs: what the processor made of the image.
        tokens: visual tokens of the image.

    Raises:
        ValueError: tokens that are no raster of patches (of a resampler, or interpolated).
    """
    if "image_grid_thw" in inputs:
        return [_of_patches(image_processor, inputs, tokens)]
    name = min(key for key in inputs if key.startswith("pixel_values"))
    tiles = inputs[name]
    tiles = tiles.reshape(-1, *tiles.shape[-3:])
    colours = _colours(image_processor, tiles.permute(0, 2, 3, 1))
    if hasattr(family.base, "pack_image_features"):
        return _of_layout(family, inputs, colours, tokens)
    if len(tiles) == 1:
        grid = family.grid(0, tokens, inputs) or _square(tokens)
        rows, columns = grid
        size = _size(inputs, colours[0])
        seen = _cropped(colours[0][: size[0], : size[1]], rows, columns)
        return [ImageView(AS_SEEN, seen, np.arange(tokens).reshape(rows, columns))]
    if tokens % len(tiles):
        raise ValueError(f"{len(tiles)} tiles must have equally many tokens, got {tokens}")
    each = tokens // len(tiles)
    rows, columns = _square(each)
    numbers = np.arange(tokens).reshape(len(tiles), rows, columns)
    return [
        ImageView(
            f"tile {place} of {len(tiles)}", _cropped(tile, rows, columns), numbers[place - 1]
        )
        for place, tile in enumerate(colours, 1)
    ]


def _of_patches(image_processor: Any, inputs: Mapping[str, Tensor], tokens: int) -> ImageView:
    """Return the view of an image that was cut into patches, those of a merged token together."""
    _, rows, columns = (int(size) for size in inputs["image_grid_thw"][0])
    merge = isqrt(rows * columns // tokens)
    if rows * columns != tokens * merge * merge:
        raise ValueError(f"{rows} x {columns} patches must be merged in squares, got {tokens}")
    values = inputs["pixel_values"]
    patch = int(image_processor.patch_size)
    # Each patch has its channels first, and as many equal frames as the encoder takes at once.
    channels = values.reshape(len(values), 3, -1, patch, patch)[:, :, 0]
    blocks = channels.reshape(
        rows // merge, columns // merge, merge, merge, 3, patch, patch
    ).permute(0, 2, 5, 1, 3, 6, 4)
    seen = _colours(image_processor, blocks.reshape(1, rows * patch, columns * patch, 3))[0]
    return ImageView(AS_SEEN, seen, np.arange(tokens).reshape(rows // merge, columns // merge))


def _of_layout(
    family: Family, inputs: Mapping[str, Tensor], colours: np.ndarray, tokens: int
) -> list[ImageView]:
    """Return the whole image and the raster of its tiles, as LLaVA-NeXT puts them together."""
    config = family.model.config
    side = int(config.vision_config.image_size) // int(config.vision_config.patch_size)
    each = side * side
    count = len(colours)
    # The model's own arrangement of the tiles, done to numbers in the place of features.
    numbers = torch.arange(count * each, dtype=torch.float32).reshape(count, each, 1)
    packed, _ = family.base.pack_image_features(
        [numbers], inputs["image_sizes"], **_packing(family)
    )
    source = torch.cat(list(packed)).reshape(-1)
    if len(source) != tokens or bool((source != source.round()).any()):
        raise ValueError(
            f"the image's tiles must be put together patch by patch, got {tokens} tokens of "
            f"{count} tiles of {each} patches that are interpolated"
        )
    place = np.full(count * each, -1)
    known = source.numpy().astype(int)
    place[known[known >= 0]] = np.flatnonzero(known >= 0)
    tile_tokens = place.reshape(count, side, side)
    seen = np.stack([_cropped(one, side, side) for one in colours])
    if count == 1:
        return [ImageView(AS_SEEN, seen[0], tile_tokens[0])]
    high, wide = _grid(family, inputs["image_sizes"][0], colours.shape[1])
    return [
        ImageView("whole image, one tile", seen[0], tile_tokens[0]),
        ImageView(
            f"{high} x {wide} tiles",
            raster(seen[1:], high, wide),
            raster(tile_tokens[1:], high, wide),
        ),
    ]


def _packing(family: Family) -> dict[str, Any]:
    """Return how a family arranges its tiles, with -1 for the newline vector."""
    packing: dict[str, Any] = {"image_newline": torch.tensor([-1.0])}
    known = inspect.signature(family.base.pack_image_features).parameters
    for name in ("vision_aspect_ratio", "vision_feature_select_strategy"):
        if name in known:
            packing[name] = getattr(family.model.config, name)
    return packing


def _grid(family: Family, size: Tensor, side: int) -> tuple[int, int]:
    """Return how many tiles lie on top of each other, and side by side."""
    pinpoints = family.model.config.image_grid_pinpoints
    high, wide = get_anyres_image_grid_shape(size, pinpoints, side)
    return int(high), int(wide)


def raster(tiles: np.ndarray, high: int, wide: int) -> np.ndarray:
    """Return tiles [high * wide, rows, columns, ...] as one raster."""
    rows = [np.concatenate(list(tiles[y * wide : (y + 1) * wide]), axis=1) for y in range(high)]
    return np.concatenate(rows, axis=0)


def _square(tokens: int) -> tuple[int, int]:
    side = isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"visual tokens must be one raster of patches, got {tokens}")
    return side, side


def _size(inputs: Mapping[str, Tensor], colours: np.ndarray) -> tuple[int, int]:
    """Return height and width of an image without the padding of a batch."""
    if "image_sizes" not in inputs:
        return colours.shape[0], colours.shape[1]
    high, wide = (int(one) for one in inputs["image_sizes"][0])
    return min(high, colours.shape[0]), min(wide, colours.shape[1])


def _cropped(colours: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return [h w 3] cut to whole patches."""
    high, wide = colours.shape[0] // rows * rows, colours.shape[1] // columns * columns
    return colours[:high, :wide]


def _colours(image_processor: Any, values: Tensor) -> np.ndarray:
    """Return normalised pixel values [i h w 3] as colours in [0, 1]."""
    seen = values.float().cpu().numpy()
    if getattr(image_processor, "do_normalize", True):
        seen = seen * np.array(image_processor.image_std) + np.array(image_processor.image_mean)
    return np.asarray(seen.clip(0, 1))
