"""CDPruner's rule: greedy determinants of diag(r) S diag(r), with Cholesky factors of S.

Nothing is read back to the host.
"""

from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from otprune.greedy.conditional_gains import SPENT, Gains
from otprune.greedy.programs import can_run, checked
from otprune.types import PickOrder

Engine = Callable[[Tensor, Gains, list[int]], list[Tensor]]


def conditional_device(
    similarity: Float[Tensor, "b n n"], gains: Gains, k: list[int]
) -> list[Tensor]:
    """Return the picks [k_i] of each image, by one program an image where that works.

    Places behind an image's last token have a variance of 0 and are spent at -inf.
    """
    program = None
    if can_run(similarity, similarity.shape[1]):
        program = _program(similarity.device)
    return (program or conditional_loops)(similarity, gains, k)


@cache
def _program(device: torch.device) -> Engine | None:
    """Return `conditional_programs` if it works on a device, see `checked`."""

    def load() -> Engine:
        from otprune.greedy.triton_conditional import conditional_programs

        return conditional_programs

    def agrees(program: Engine) -> bool:
        generator = torch.Generator().manual_seed(0)
        vectors = torch.randn(2, 70, 24, generator=generator)
        units = torch.nn.functional.normalize(vectors, dim=-1).to(device)
        relevance = torch.rand(2, 70, generator=generator).to(device)
        given = (
            units @ units.mT,
            Gains(torch.ones_like(relevance), relevance.square(), relevance - 2),
            # Beyond the channels, all is spanned.
            [20, 40],
        )
        both = zip(program(*given), conditional_loops(*given), strict=True)
        return all(torch.equal(a, b) for a, b in both)

    return checked(load, agrees)


def conditional_loops(
    similarity: Float[Tensor, "b n n"], gains: Gains, k: list[int]
) -> list[Tensor]:
    """Return the picks of each image, one image after another; see `conditional_device`."""
    return [
        conditional_loop(lambda j, one=one: one[j][0], Gains(*of), count)
        for one, of, count in zip(similarity, zip(*gains, strict=True), k, strict=True)
    ]


def conditional_loop(row_of: Callable[[Tensor], Tensor], gains: Gains, k: int) -> PickOrder:
    """Return k picks of one image; some operations a pick, on any device.

    Args:
        row_of: returns the row of S [n] of a token, whose position is int64 [1].
        gains: of the image.
        k: how many.
    """
    variance, weight, spent = gains
    factor = variance.new_empty(k, len(variance))
    picked = torch.zeros_like(variance)
    order = torch.empty(k, dtype=torch.long, device=variance.device)
    for t in range(k):
        gain = torch.where(variance > SPENT, weight * variance, spent) + picked
        j = gain.argmax(0, keepdim=True)
        order[t : t + 1] = j
        past, left = factor[:t], variance[j]
        row = (row_of(j) - past[:, j][:, 0] @ past) * left.clamp(min=SPENT).rsqrt()
        # A pick that the earlier ones span does not change the variances of others.
        factor[t] = row.masked_fill(left <= SPENT, 0.0)
        variance = variance - factor[t].square()
        picked.index_fill_(0, j, float("-inf"))
    return order
