"""Grid: tokens spread evenly over the two axes of the image."""

import math
from dataclasses import dataclass

import torch

from otprune.selector import Selector
from otprune.signals import Signals
from otprune.tiles import row_ends, share_out, tile_rasters
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class Grid(Selector):
    """Spatially even selection: round(sqrt(k height / width)) rows, and k shared among them.

    With that number of rows the spacing is the same along both axes, up to rounding. The counts of
    rows differ by at most one; rows, and tokens in a row, are at the middles of equal intervals.
    k = 64 of 24 x 24 is every third token along both axes. Not nested. O(k).

    Takes the shape from ``signals.grid``; without it n must be a square. An image of several tiles
    is several rasters, with k divided evenly; newline tokens come last.
    """

    @property
    def nested(self) -> bool:
        """No: the positions of a coarse grid are not among those of a finer one."""
        return False

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        if signals.tiles is None:
            height, width = _shape(len(tokens), signals)
            return torch.tensor(_places(height, width, k), device=tokens.device)
        rasters, ends = tile_rasters(signals, len(tokens)), row_ends(signals)
        sizes = [raster.numel() for raster in rasters]
        shares = share_out(min(k, sum(sizes)), sizes)
        picks = []
        for raster, share in zip(rasters, shares, strict=True):
            places = _places(len(raster), raster.shape[1], share)
            picks.append(raster.flatten()[torch.tensor(places, dtype=torch.long)])
        return torch.cat([*picks, ends[: k - sum(shares)]]).to(tokens.device)


def _places(height: int, width: int, k: int) -> list[int]:
    """Return k places of a raster that are spread evenly over both axes."""
    if k == 0:
        return []
    least, most = -(-k // width), min(height, k)
    rows = min(max(round(math.sqrt(k * height / width)), least), most)
    picks = []
    for row in range(rows):
        count = (row + 1) * k // rows - row * k // rows
        y = (2 * row + 1) * height // (2 * rows)
        picks += [y * width + (2 * i + 1) * width // (2 * count) for i in range(count)]
    return picks


def _shape(n: int, signals: Signals) -> tuple[int, int]:
    if signals.grid is None:
        side = math.isqrt(n)
        if side * side != n:
            raise ValueError(f"signals.grid must be given where n is not a square, got n = {n}")
        return side, side
    return signals.grid
