"""Kept patches drawn on an image."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from PIL import Image

VEIL = 0.65
"""How far a dropped patch is faded: 0 not at all, 1 to white."""

PAD = (122, 116, 104)
"""Colour of the margins that make an image square: CLIP's mean, as the models pad."""


def seen(image: Image.Image, grid: tuple[int, int], side: int = 336) -> np.ndarray:
    """Return what a grid of patches covers of an image.

    A square grid on an image that is not square means that the image was padded to a square, as
    LLaVA-1.5 does.

    Args:
        image: as the task gives it.
        grid: rows and columns of patches.
        side: pixels of the longer side, at least; rounded up to whole patches.

    Returns:
        Pixels [h w 3] in [0, 1]; h and w are multiples of the grid.
    """
    rows, columns = grid
    rgb = image.convert("RGB")
    if rows == columns and rgb.width != rgb.height:
        longer = max(rgb.size)
        square = Image.new("RGB", (longer, longer), PAD)
        square.paste(rgb, ((longer - rgb.width) // 2, (longer - rgb.height) // 2))
        rgb = square
    patch = math.ceil(side / max(grid))
    whole = rgb.resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
    return np.asarray(whole, dtype=float) / 255


def mask_of(kept: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return positions [k] in raster order as patches [rows columns] of bool.

    Raises:
        ValueError: a position outside the grid.
    """
    positions = np.asarray(kept, dtype=int)
    size = grid[0] * grid[1]
    if positions.size and not (positions.min() >= 0 and positions.max() < size):
        raise ValueError(f"kept must lie in a grid of {grid[0]} x {grid[1]}, got {positions.max()}")
    mask = np.zeros(size, dtype=bool)
    mask[positions] = True
    return mask.reshape(grid)


def fade(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image with every dropped patch grey and faded to white.

    Args:
        pixels: [h w 3] in [0, 1], sides that are multiples of the mask's.
        mask: kept patches, [rows columns].
    """
    rows, columns = pixels.shape[0] // mask.shape[0], pixels.shape[1] // mask.shape[1]
    whole = np.kron(mask, np.ones((rows, columns), dtype=bool))[..., None]
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    return np.where(whole, pixels, VEIL + (1 - VEIL) * grey[..., None])


def outline(axes: Axes, mask: np.ndarray, shape: tuple[int, int], colour: str) -> None:
    """Draw the borders between kept and dropped patches.

    Args:
        axes: shows the image with `imshow`.
        mask: kept patches, [rows columns].
        shape: height and width of the image in pixels.
        colour: of the lines.
    """
    high, wide = shape[0] / mask.shape[0], shape[1] / mask.shape[1]
    framed = np.pad(mask, 1)
    lines = []
    for row, column in np.argwhere(framed[:, 1:] != framed[:, :-1]):
        x, y = column * wide - 0.5, (row - 1) * high - 0.5
        lines.append([(x, y), (x, y + high)])
    for row, column in np.argwhere(framed[1:] != framed[:-1]):
        x, y = (column - 1) * wide - 0.5, row * high - 0.5
        lines.append([(x, y), (x + wide, y)])
    axes.add_collection(
        LineCollection(lines, colors=colour, linewidths=0.8, capstyle="projecting", clip_on=False)
    )
