"""Average pooling: the mean of each cell of a coarser raster."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from otprune.merger import Merger, Mixture
from otprune.mergers.rasters import cell_centres, coarse_shape, tile_rasters
from otprune.signals import Signals
from otprune.tiles import share_out
from otprune.types import VisualTokens


@dataclass(frozen=True, slots=True)
class Pooling(Merger):
    """Mean of the projected tokens in each of r x c equal cells.

    No paper's method: the plain baseline of every table of mergers. A cell's edge may run through
    patches, which then count by the share of their area inside; where r and c divide the raster
    this is `torch.nn.functional.avg_pool2d`. r x c is at most k and as near to it as the raster's
    aspect allows, see `coarse_shape`: k is an upper bound.

    An image of several tiles is pooled tile by tile, k shared out evenly; ends of rows are left
    out. New tokens are in raster order, tile after tile. O(nk) to write the weights down.

    Takes the shape from ``signals.grid``, or from ``signals.tiles``.
    """

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
            cells = torch.zeros(shape[0] * shape[1], n)
            inside = torch.kron(_overlaps(shape[0], rows), _overlaps(shape[1], columns))
            cells[:, raster.reshape(-1)] = inside
            weights.append(cells)
            places.append(cell_centres(shape, raster))
        device = tokens.device
        return Mixture(torch.cat(places).to(device), torch.cat(weights).to(device))


def _overlaps(cells: int, patches: int) -> Float[Tensor, "cells patches"]:
    """Share of each patch in the mean of each of ``cells`` equal stretches of an axis."""
    # Whole numbers until the end: a patch is `cells` long, a stretch `patches`.
    start = torch.arange(cells)[:, None] * patches
    patch = torch.arange(patches)[None] * cells
    ends = torch.minimum(start + patches, patch + cells)
    return (ends - torch.maximum(start, patch)).clamp(min=0).float() / patches
