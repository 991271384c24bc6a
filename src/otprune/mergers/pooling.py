"""Average pooling: the mean over each bin of a coarser raster."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from otprune.merger import Merger, Mixture
from otprune.mergers.rasters import bin_centres, coarse_shape
from otprune.signals import Signals
from otprune.tiles import share_out, tile_rasters
from otprune.types import VisualTokens


@dataclass(frozen=True, slots=True)
class Pooling(Merger):
    """Mean of the projected tokens in each of r x c equal bins.

    Not from a paper: the plain baseline of every table of mergers. A patch that lies in several
    bins counts in each by the share of its area there; where r and c divide the raster this is
    `torch.nn.functional.avg_pool2d`. k is an upper bound: r x c is at most k, and as near to it as
    the raster's aspect ratio allows, see `coarse_shape`.

    An image of several tiles is pooled tile by tile, with k divided evenly; newline tokens are left
    out. New tokens are in raster order, tile after tile. O(nk) to write the weights.

    The raster's shape comes from ``signals.grid`` or ``signals.tiles``.
    """

    by_tile = True

    def count(self, k: int, grid: tuple[int, int]) -> int:
        """Return the number of bins."""
        return math.prod(coarse_shape(k, *grid))

    def _merge_image(self, tokens: VisualTokens, k: int, signals: Signals) -> Mixture:
        n = len(tokens)
        rasters = tile_rasters(signals, n)
        sizes = [raster.numel() for raster in rasters]
        places, weights = [], []
        for raster, share in zip(rasters, share_out(min(k, sum(sizes)), sizes), strict=True):
            if share == 0:
                continue
            rows, columns = raster.shape
            shape = coarse_shape(share, rows, columns)
            means = torch.zeros(shape[0] * shape[1], n)
            inside = torch.kron(_overlaps(shape[0], rows), _overlaps(shape[1], columns))
            means[:, raster.reshape(-1)] = inside
            weights.append(means)
            places.append(bin_centres(shape, raster))
        device = tokens.device
        return Mixture(torch.cat(places).to(device), torch.cat(weights).to(device))


def _overlaps(bins: int, patches: int) -> Float[Tensor, "bins patches"]:
    """Return the weight of each patch in the mean of each of ``bins`` intervals of an axis."""
    # In units in which all bounds are whole numbers: a patch is `bins` long, a bin `patches`.
    start = torch.arange(bins)[:, None] * patches
    patch = torch.arange(patches)[None] * bins
    ends = torch.minimum(start + patches, patch + bins)
    return (ends - torch.maximum(start, patch)).clamp(min=0).float() / patches
