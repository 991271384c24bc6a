"""CDPruner's rule in one program an image, for GPUs; optional, it needs Triton.

As `triton_program`, but for gains that are weighted, and tokens that the picks span.
"""

from typing import no_type_check

import torch

# Triton comes with torch's builds for CUDA, and is in no environment without them.
import triton  # type: ignore[import-not-found]
import triton.language as tl  # type: ignore[import-not-found]
from torch import Tensor

from otprune.greedy.conditional_gains import SPENT, Gains
from otprune.greedy.triton_program import launch, rows_together


def conditional_programs(similarity: Tensor, gains: Gains, k: list[int]) -> list[Tensor]:
    """Return the picks of each image, as `conditional_device` does. Memory O(bnk)."""
    b, n, _ = similarity.shape
    steps = max(k)
    rows = similarity.new_empty(b, steps, n)
    order = torch.empty(b, steps, dtype=torch.int64, device=similarity.device)
    block = triton.next_power_of_2(n)
    given = [one.contiguous() for one in (similarity, *gains)]
    arguments = (*given, rows, order, n, steps, SPENT)
    launch(_pick_conditional, b, block, *arguments, ROWS=rows_together(block))
    # Picks of an image beyond its own k mean nothing.
    return [order[i, :count] for i, count in enumerate(k)]


@triton.jit
# A wrapper that checks types is nothing that Triton can read.
@no_type_check
def _pick_conditional(
    similarity, variance, weight, spent, rows, order, n, steps, least,  # noqa: ANN001 (Triton's own types and names)
    BLOCK: tl.constexpr, ROWS: tl.constexpr,  # noqa: N803
) -> None:  # fmt: skip
    """Make ``steps`` picks of the image of this program.

    Args:
        similarity: S, [b n n].
        variance: see `Gains`, [b n].
        weight: see `Gains`, [b n].
        spent: see `Gains`, [b n].
        rows: Cholesky rows, [b steps n]; written and read.
        order: picks, [b steps]; written.
        n: tokens of the largest image.
        steps: picks.
        least: variance at and below which a token is spanned.
        BLOCK: a power of two from n on.
        ROWS: Cholesky rows read together.
    """
    image = tl.program_id(0)
    similarity += image * n * n
    rows += image * steps * n
    column = tl.arange(0, BLOCK)
    inside = column < n
    left = tl.load(variance + image * n + column, mask=inside, other=0.0)
    factor = tl.load(weight + image * n + column, mask=inside, other=0.0)
    otherwise = tl.load(spent + image * n + column, mask=inside, other=float("-inf"))
    taken = column >= n
    for step in range(steps):
        gain = tl.where(left > least, factor * left, otherwise)
        pick = tl.argmax(tl.where(taken, float("-inf"), gain), axis=0, tie_break_left=True)
        tl.store(order + image * steps + step, pick.to(tl.int64))
        own = tl.sum(tl.where(column == pick, left, 0.0), axis=0)
        row = tl.load(similarity + pick * n + column, mask=inside, other=0.0)
        for start in range(0, step, ROWS):
            before = start + tl.arange(0, ROWS)
            known = before < step
            both = known[:, None] & inside[None, :]
            past = tl.load(rows + before[:, None] * n + column[None, :], mask=both, other=0.0)
            at = tl.load(rows + before * n + pick, mask=known, other=0.0)
            row -= tl.sum(at[:, None] * past, axis=0)
        # A pick that the earlier ones span does not change the variances of others.
        row = tl.where(own > least, row / tl.sqrt(tl.maximum(own, least)), 0.0)
        tl.store(rows + step * n + column, row, mask=inside)
        # Other threads of the program read what this one has written.
        tl.debug_barrier()
        left = left - row * row
        taken = taken | (column == pick)
