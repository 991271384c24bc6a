"""Max-min selection in one program an image, for GPUs; optional, it needs Triton.

Distances to the nearest pick stay in registers; each pick reads one row of distances.
"""

from typing import no_type_check

import torch

# Triton comes with torch's builds for CUDA, and is in no environment without them.
import triton  # type: ignore[import-not-found]
import triton.language as tl  # type: ignore[import-not-found]
from torch import Tensor

from otprune.greedy.programs import on_device
from otprune.greedy.triton_program import launch


def max_min_programs(
    distances: Tensor, first: Tensor, sizes: list[int], k: list[int]
) -> list[Tensor]:
    """Return the picks of each image, as `max_min_device` does. Memory O(bk)."""
    b, n, _ = distances.shape
    steps = max(k)
    order = torch.empty(b, steps, dtype=torch.int64, device=distances.device)
    block = triton.next_power_of_2(n)
    arguments = (distances.contiguous(), first, on_device(sizes, distances), order, n, steps)
    launch(_pick_farthest, b, block, *arguments)
    # Picks of an image beyond its own k mean nothing.
    return [order[i, :count] for i, count in enumerate(k)]


@triton.jit
# A wrapper that checks types is nothing that Triton can read.
@no_type_check
def _pick_farthest(
    distances, first, sizes, order, n, steps, BLOCK: tl.constexpr  # noqa: ANN001, N803 (Triton's own types and names)
) -> None:  # fmt: skip
    """Make ``steps`` picks of the image of this program.

    Args:
        distances: [b n n].
        first: the first pick, [b].
        sizes: tokens, [b].
        order: picks, [b steps]; written.
        n: tokens of the largest image.
        steps: picks, at least one.
        BLOCK: a power of two from n on.
    """
    image = tl.program_id(0)
    distances += image * n * n
    column = tl.arange(0, BLOCK)
    inside = column < tl.load(sizes + image)
    pick = tl.load(first + image).to(tl.int32)
    tl.store(order + image * steps, pick.to(tl.int64))
    row = tl.load(distances + pick * n + column, mask=inside, other=0.0)
    nearest = tl.where(inside & (column != pick), row, float("-inf"))
    for step in range(1, steps):
        pick = tl.argmax(nearest, axis=0, tie_break_left=True)
        tl.store(order + image * steps + step, pick.to(tl.int64))
        row = tl.load(distances + pick * n + column, mask=inside, other=0.0)
        nearest = tl.where(column == pick, float("-inf"), tl.minimum(nearest, row))
