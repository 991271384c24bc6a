"""Images of several tiles: which token belongs to which tile, and how a budget is divided."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from otprune.signals import Signals
from otprune.types import PickOrder


def share_out(k: int, sizes: Sequence[int]) -> list[int]:
    """Return how many of ``k`` tokens each tile gets, as evenly as the sizes allow.

    Every tile gets the same number, or all its tokens if it has fewer. A remainder goes to the
    first tiles that have tokens left, one each.

    Raises:
        ValueError: ``k`` below 0 or above the sum of the sizes.
    """
    if not 0 <= k <= sum(sizes):
        raise ValueError(f"k must be in 0..{sum(sizes)}, the sizes' sum, got {k}")
    shares = [0] * len(sizes)
    open_tiles = [i for i, size in enumerate(sizes) if size > 0]
    left = k
    while left:
        each = left // len(open_tiles)
        if each == 0:
            for i in open_tiles[:left]:
                shares[i] += 1
            break
        for i in open_tiles:
            more = min(each, sizes[i] - shares[i])
            shares[i] += more
            left -= more
        open_tiles = [i for i in open_tiles if shares[i] < sizes[i]]
    return shares


def tile_groups(signals: Signals, n: int) -> list[Int64[Tensor, " m"]]:
    """Return the positions of each tile's tokens, tile after tile, on the CPU.

    Newline tokens (tile -1) are in no group. An image of one tile is one group of ``n`` tokens.
    """
    if signals.tiles is None:
        return [torch.arange(n)]
    tiles = signals.tiles.cpu()
    return [(tiles == tile).nonzero()[:, 0] for tile in tiles.unique().tolist() if tile >= 0]


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


def patches(signals: Signals, n: int) -> Int64[Tensor, " m"]:
    """Return the positions of all tokens but newline tokens, ascending, on the CPU."""
    if signals.tiles is None:
        return torch.arange(n)
    return (signals.tiles.cpu() >= 0).nonzero()[:, 0]


def row_ends(signals: Signals) -> Int64[Tensor, " m"]:
    """Return the positions of newline tokens, ascending, on the CPU."""
    if signals.tiles is None:
        return torch.arange(0)
    return (signals.tiles.cpu() < 0).nonzero()[:, 0]


def pick_by_tiles(
    signals: Signals,
    n: int,
    k: int,
    pick: Callable[[Int64[Tensor, " m"], int], Tensor],
    device: torch.device,
) -> PickOrder:
    """Return ``k`` picks of an image, chosen within each tile, in turn from one tile after another.

    Newline tokens come last, in order. If a tile's picks are nested, so are the image's.

    Args:
        signals: of the image; ``tiles`` is used.
        n: tokens of the image.
        k: how many to pick, divided among the tiles by `share_out`.
        pick: called for each tile with the positions of its tokens and a count, returns which of
            them are picked, in order.
        device: of the result.
    """
    groups = tile_groups(signals, n)
    ends = row_ends(signals)
    shares = share_out(min(k, n - len(ends)), [len(group) for group in groups])
    chosen, turns = [], []
    for tile, (group, share) in enumerate(zip(groups, shares, strict=True)):
        group = group.to(device)
        chosen.append(group[pick(group, share)] if share else group[:0])
        turns.append(torch.arange(share) * len(groups) + tile)
    order = torch.cat(turns or [ends[:0]]).argsort().to(device)
    picks = torch.cat(chosen or [ends[:0].to(device)])[order]
    return torch.cat([picks, ends[: k - len(picks)].to(device)])
