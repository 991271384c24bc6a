"""Gather positions of each row of a batch, and pad rows of unequal length."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

Side = Literal["left", "right"]
"""Where shorter rows are padded."""


def stacked(
    picks: Sequence[Int64[Tensor, " t"]], side: Side
) -> tuple[Int64[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Return positions as a padded matrix, and which entries are no padding."""
    longest = max(len(pick) for pick in picks)
    index = torch.zeros(len(picks), longest, dtype=torch.long)
    valid = torch.zeros(len(picks), longest, dtype=torch.bool)
    for row, pick in enumerate(picks):
        place = slice(longest - len(pick), None) if side == "left" else slice(0, len(pick))
        index[row, place] = pick
        valid[row, place] = True
    return index, valid


def as_rows(tensor: Tensor, rows: int) -> Tensor:
    """Return a tensor [1 ...] that holds for all rows alike as [rows ...]; others unchanged."""
    return tensor.expand(rows, *tensor.shape[1:])


def take_positions(tensor: Tensor, index: Int64[Tensor, "b u"]) -> Tensor:
    """Return some positions of each row: [b t ...] becomes [b u ...]."""
    index = index.to(tensor.device)
    spread = index.reshape(*index.shape, *[1] * (tensor.ndim - 2))
    return tensor.gather(1, spread.expand(-1, -1, *tensor.shape[2:]))


def take_last_axis(tensor: Int64[Tensor, "*m b t"], index: Int64[Tensor, "b u"]) -> Tensor:
    """Return some positions of each row: [b t] or [m b t] becomes [b u] or [m b u].

    A row axis of length 1 holds for all rows alike.
    """
    index = index.to(tensor.device)
    leading = tensor.shape[:-2]
    whole = tensor.expand(*leading, len(index), tensor.shape[-1])
    return whole.gather(-1, index.expand(*leading, *index.shape))
