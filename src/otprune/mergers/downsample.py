"""Down-sampling: the tokens of a smaller image."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from otprune.merger import Merger, Mixture
from otprune.mergers.rasters import bin_centres, coarse_shape
from otprune.signals import Signals
from otprune.tiles import tile_rasters
from otprune.types import VisualTokens


@dataclass(frozen=True, slots=True)
class Downsample(Merger):
    """The image is reduced so that it has few patches, and encoded again.

    Source: the baseline of arXiv 2510.07143, which finds it better than many pruning methods. k is
    an upper bound: there are r x c patches, as near to k as the image's aspect ratio allows, see
    `coarse_shape`. Of an image of several tiles only the first is used, which shows the whole
    image; there are at most as many patches as it has. Without ``signals.grid`` and
    ``signals.tiles`` the image is taken to be a square.

    Cost: the vision encoder runs a second time, over fewer patches: ``signals.encode_at``.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"encode_at"})

    def _merge_image(self, tokens: VisualTokens, k: int, signals: Signals) -> Mixture:
        if signals.grid is None and signals.tiles is None:
            side = math.isqrt(len(tokens))
            shape = coarse_shape(k, side, side)
            places = torch.full((shape[0] * shape[1],), -1)
        else:
            raster = tile_rasters(signals, len(tokens))[0]
            shape = coarse_shape(k, *raster.shape)
            places = bin_centres(shape, raster)
        encode = signals.encode_at
        if encode is None:
            raise ValueError("signals.encode_at must be given, got None")
        made = encode(*shape)
        if made.ndim != 2 or len(made) != len(places):
            raise ValueError(
                f"signals.encode_at{shape} must give {len(places)} tokens [r * c, d], got shape "
                f"{tuple(made.shape)}"
            )
        return Mixture(places.to(tokens.device), tokens=made)
