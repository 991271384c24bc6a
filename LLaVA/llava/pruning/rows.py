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
    """Return a tensor that stands for all rows alike as one with a row for each."""
    return tensor.expand(rows, *tensor.shape[1:])


def take_positions(tensor: Tensor, index: Int64[Tensor, "b t"]) -> Tensor:
    """Return positions of each row: [b t ...] at [b u] gives [b u ...]."""
    index = index.to(tensor.device)
    spread = index.reshape(*index.shape, *[1] * (tensor.ndim - 2))
    return tensor.gather(1, spread.expand(-1, -1, *tensor.shape[2:]))
