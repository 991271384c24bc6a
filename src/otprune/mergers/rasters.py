"""Rasters of patches: that of each tile, and coarser ones of at most k cells."""

import math

import torch
from jaxtyping import Int64
from torch import Tensor

from otprune.signals import Signals
from otprune.tiles import tile_groups

_MOST_STRETCHED = 1.5


def tile_rasters(signals: Signals, n: int) -> list[Int64[Tensor, "rows columns"]]:
    """Return the positions of each tile's tokens as a raster, tile after tile, on the CPU.

    One raster if the image is one tile. Otherwise the tokens of a tile are row by row whether the
    tiles follow each other or their rows alternate; a tile of which padding was cut is a smaller
    rectangle, whose rows other tokens part.

    Raises:
        ValueError: neither ``signals.grid`` nor ``signals.tiles`` is known; a tile is no rectangle.
    """
    if signals.tiles is None:
        if signals.grid is None:
            raise ValueError("signals.grid must be given for an image of one tile, got None")
        return [torch.arange(n).view(signals.grid)]
    rasters = []
    for number, group in enumerate(tile_groups(signals, n)):
        # The first row ends where the next token of the tile is not its neighbour.
        breaks = (group.diff() != 1).nonzero()[:, 0]
        columns = int(breaks[0]) + 1 if len(breaks) else math.isqrt(len(group))
        rows = len(group) // columns
        whole = rows * columns == len(group)
        expected = torch.arange(1, rows) * columns - 1
        if not whole or (len(breaks) and not torch.equal(breaks, expected)):
            raise ValueError(
                f"signals.tiles must make each tile a raster row by row, a square if nothing parts "
                f"its rows; got {len(group)} tokens of tile {number}, which are none"
            )
        rasters.append(group.view(rows, columns))
    return rasters


def coarse_shape(k: int, rows: int, columns: int) -> tuple[int, int]:
    """Return the rows and columns of the coarser raster that stands for one of ``rows x columns``.

    At most ``k`` cells, not more rows or columns than there are. Of the shapes whose cells are at
    most 1.5 times as long along one axis as along the other, counted in patches, the one with the
    most cells; then the one with the squarest cells; then the one with fewer rows. Where no shape
    is so good, the squarest. Of 24 x 24, 64 are 8 x 8, 56 are 7 x 8, 128 are 11 x 11, and
    192 are 12 x 16; of budgets from 16 on 1.7 % are lost on average, 16 % at worst (16 of 19).
    """

    def rank(shape: tuple[int, int]) -> tuple[float, int, float, int]:
        ratio = shape[0] * columns / (shape[1] * rows)
        stretched = max(ratio, 1 / ratio)
        cells = shape[0] * shape[1]
        return max(stretched, _MOST_STRETCHED), -cells, stretched, shape[0]

    shapes = []
    for r in range(1, min(rows, k) + 1):
        widest = max(1, int(_MOST_STRETCHED * r * columns / rows))
        shapes.append((r, min(columns, k // r, widest)))
    return min(shapes, key=rank)


def cell_centres(
    shape: tuple[int, int], raster: Int64[Tensor, "rows columns"]
) -> Int64[Tensor, " m"]:
    """Return the position in the raster that is nearest to the centre of each coarse cell."""
    rows, columns = raster.shape
    y = (2 * torch.arange(shape[0]) + 1) * rows // (2 * shape[0])
    x = (2 * torch.arange(shape[1]) + 1) * columns // (2 * shape[1])
    return raster[y][:, x].reshape(-1)
