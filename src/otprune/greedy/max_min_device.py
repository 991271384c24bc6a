"""Max-min selection from all distances, for GPUs: each pick is the token farthest from its picks.

Nothing is read back to the host.
"""

from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.greedy.programs import can_run, checked
from otprune.types import PickOrder

Engine = Callable[[Tensor, Tensor, list[int], list[int]], list[Tensor]]


def max_min_device(
    distances: Float[Tensor, "b n n"], first: Int64[Tensor, " b"], sizes: list[int], k: list[int]
) -> list[Tensor]:
    """Return the picks [k_i] of each image: the first given, then always the farthest.

    By one program an image where that works, else by a loop for each. Ties go to the lower index.

    Args:
        distances: between the tokens of each image; rows and columns behind its last token are
            ignored.
        first: each image's first pick.
        sizes: tokens of each image.
        k: picks of each image, at most its tokens.
    """
    program = None
    if can_run(distances, distances.shape[1]):
        program = _program(distances.device, distances.dtype)
    return (program or max_min_loops)(distances, first, sizes, k)


@cache
def _program(device: torch.device, dtype: torch.dtype) -> Engine | None:
    """Return `max_min_programs` if it works on a device, see `checked`."""

    def load() -> Engine:
        from otprune.greedy.triton_max_min import max_min_programs

        return max_min_programs

    def agrees(program: Engine) -> bool:
        generator = torch.Generator().manual_seed(0)
        sample = torch.rand(2, 70, 70, generator=generator).to(device, dtype)
        first = torch.tensor([3, 40], device=device)
        # Many distances are equal: so are the picks only if ties go by position.
        given = (sample.mul(8).round(), first, [70, 41], [30, 41])
        both = zip(program(*given), max_min_loops(*given), strict=True)
        return all(torch.equal(a, b) for a, b in both)

    return checked(load, agrees)


def max_min_loops(
    distances: Float[Tensor, "b n n"], first: Int64[Tensor, " b"], sizes: list[int], k: list[int]
) -> list[Tensor]:
    """Return the picks of each image, one image after another; see `max_min_device`."""
    return [
        max_min_loop(distances[i, :n, :n], first[i : i + 1], count)
        for i, (n, count) in enumerate(zip(sizes, k, strict=True))
    ]


def max_min_loop(distances: Float[Tensor, "n n"], first: Int64[Tensor, " 1"], k: int) -> PickOrder:
    """Return k picks of one image; some operations a pick, on any device."""
    order = torch.empty(k, dtype=torch.long, device=distances.device)
    order[:1] = first
    nearest = torch.full_like(distances[0], float("inf"))
    for t in range(1, k):
        last = order[t - 1 : t]
        nearest = torch.minimum(nearest, distances[last][0]).index_fill_(0, last, float("-inf"))
        order[t : t + 1] = nearest.argmax(0, keepdim=True)
    return order
