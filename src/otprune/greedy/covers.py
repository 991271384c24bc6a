"""What greedy coverage is given: rows to cover, and the columns that may be picked."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from otprune.greedy.programs import behind, padded


class Cover(NamedTuple):
    """What is to be covered in one image.

    Attributes:
        rows: how well each column covers each row, [r n]; entries below 0 count as 0.
        k: how many columns are picked.
        last: columns that are picked only after all others, by the same rule; None for none.
        weights: factors of the gains, at least 0, float32; None for 1.
    """

    rows: Float[Tensor, "r n"]
    k: int
    last: Int64[Tensor, " m"] | None = None
    weights: Float[Tensor, " n"] | None = None


def padded_rows(covers: list[Cover]) -> Float[Tensor, "b r n"]:
    """Return the rows of all images, zeros behind the last row and column of each."""
    return padded([one.rows for one in covers], covers[0].rows.dtype)


def turns(covers: list[Cover], like: Float[Tensor, "b r n"]) -> Int32[Tensor, "b n"]:
    """Return when columns [b n] may be picked: 0 at once, 1 after all others, 2 never: padding."""
    sizes = [one.rows.shape[1] for one in covers]
    turn = behind(sizes, like.mT).to(torch.int32) * 2
    for row, one in zip(turn, covers, strict=True):
        if one.last is not None:
            row.index_fill_(0, one.last, 1)
    return turn
