"""The result of a greedy run, and the variance below which tokens count as equal."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from otprune.types import PickOrder

PICKED = float("-inf")
"""Conditional variance of a picked token, so that it is never picked again."""


class Picks(NamedTuple):
    """Tokens in the order of picking, and their conditional variances.

    Attributes:
        order: positions of the picked tokens.
        variances: conditional variance d² of each token when it was picked; the sum of the
            logarithms of the first k is log det of the kernel on them.
    """

    order: PickOrder
    variances: Float[Tensor, " k"]


def variance_floor(diagonal: Float[Tensor, "*b n"], ridge: float) -> Float[Tensor, "*b"]:
    """Return the conditional variance at and below which tokens count as equal, for each image.

    A kernel ``ridge * I + PSD`` has conditional variances of at least ``ridge``. Without a ridge
    they are zero once the picks span the kernel's rank, up to rounding of the diagonal.
    """
    if ridge > 0:
        return torch.full_like(diagonal[..., 0], ridge)
    rounding = 64 * torch.finfo(diagonal.dtype).eps
    return diagonal.amax(-1).mul(rounding).clamp(min=torch.finfo(diagonal.dtype).tiny)


def with_leftovers(
    order: list[int], variances: list[float], floor: float, k: int, diagonal: Float[Tensor, " n"]
) -> Picks:
    """Complete a run in which no token has a gain left by the lowest positions not yet picked."""
    taken = set(order)
    for i in range(len(diagonal)):
        if len(order) == k:
            break
        if i not in taken:
            order.append(i)
            variances.append(floor)
    return Picks(torch.tensor(order), diagonal.new_tensor(variances))
