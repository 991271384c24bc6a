"""Rasters of patches: that of each tile, and coarser ones of at most k bins."""

import math

import torch
from jaxtyping import Int64
from torch import Tensor

from otprune.signals import Signals
from otprune.tiles import tile_groups

_MOST_STRETCHED = 1.5


def tile_rasters(signals: Signals, n: int) -> list[Int64[Tensor, "rows columns"]]:
    """Return the positions of each tile's tokens as a raster, tile after tile, on the CPU.

    One raster if the image is one tile. Otherwise the tokens of each tile must be in raster order;
    tiles may follow each other, or their rows may alternate. A tile whose padding was cut off is a
    smaller rectangle, recognised by the other tokens between its rows.

    Raises:
        ValueError: neither ``signals.grid`` nor ``signals.tiles`` is known; a tile is no rectangle.
    """
    if signals.tiles is None:
        if signals.grid is None:
            raise ValueError("signals.grid must be given for an image of one tile, got None")
        return [torch.arange(n).view(signals.grid)]
    rasters = []
    for number, group in enumerate(tile_groups(signals, n)):
        # The first row ends where the tile's next token is not the next of the image.
        breaks = (group.diff() != 1).nonzero()[:, 0]
        columns = int(breaks[0]) + 1 if len(breaks) else math.isqrt(len(group))
        rows = len(group) // columns
        whole = rows * columns == len(group)
        expected = torch.arange(1, rows) * columns - 1
        if not whole or (len(breaks) and not torch.equal(breaks, expected)):
            raise ValueError(
                f"signals.tiles must make each tile a raster in row order, a square if its rows "
                f"follow each other; got {len(group)} tokens of tile {number}, which are no raster"
            )
        rasters.append(group.view(rows, columns))
    return rasters


def coarse_shape(k: int, rows: int, columns: int) -> tuple[int, int]:
    """Return the rows and columns of the raster to which one of ``rows x columns`` is reduced.

    It has at most ``k`` bins, and at most as many rows and columns as there are. Among the shapes
    whose bins are at most 1.5 times as long along one axis as along the other, in patches, it has
    the most bins; ties go to the most square bins, then to fewer rows. If there is no such shape it
    has the most square bins. For 24 x 24, k = 64 gives 8 x 8, 56 gives 7 x 8, 128 gives 11 x 11,
    and 192 gives 12 x 16. Over budgets from 16 on, the bins are on average 1.7 % fewer than k, at
    most 16 % (16 for k = 19).
    """

    def rank(shape: tuple[int, int]) -> tuple[float, int, float, int]:
        ratio = shape[0] * columns / (shape[1] * rows)
        stretched = max(ratio, 1 / ratio)
        bins = shape[0] * shape[1]
        return max(stretched, _MOST_STRETCHED), -bins, stretched, shape[0]

    shapes = []
    for r in range(1, min(rows, k) + 1):
        widest = max(1, int(_MOST_STRETCHED * r * columns / rows))
        shapes.append((r, min(columns, k // r, widest)))
    return min(shapes, key=rank)


def bin_centres(
    shape: tuple[int, int], raster: Int64[Tensor, "rows columns"]
) -> Int64[Tensor, " m"]:
    """Return the entry of the raster that is nearest to the centre of each bin of a coarser one."""
    rows, columns = raster.shape
    y = (2 * torch.arange(shape[0]) + 1) * rows // (2 * shape[0])
    x = (2 * torch.arange(shape[1]) + 1) * columns // (2 * shape[1])
    return raster[y][:, x].reshape(-1)
