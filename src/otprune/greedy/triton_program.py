"""Greedy log-determinant in one program an image, for GPUs; optional, it needs Triton.

The loop of `device` launches some twenty kernels for each pick, whatever the batch. Here a program
makes all picks of an image: variances stay in its registers, and it reads a row of the kernel and
the Cholesky rows so far for each pick. Which is used is decided by `greedy_device`.
"""

from typing import Any, no_type_check

import torch

# Triton comes with torch's builds for CUDA, and is in no environment without them.
import triton  # type: ignore[import-not-found]
import triton.language as tl  # type: ignore[import-not-found]

from otprune.greedy.padded_kernels import dense_kernels
from otprune.greedy.picks import Picks, variance_floor
from otprune.greedy.programs import images_at_once, in_parts
from otprune.kernels import FactoredKernel

OPTIONS = {"num_stages": 1, "enable_fp_fusion": False}
"""Of every launch. Loads are not moved ahead of a step, whose stores they depend on; products and
sums are rounded one after the other, as in the loops."""


def warps(block: int) -> int:
    """Return how many warps share a block of columns: 128 columns each, at most 16."""
    return min(16, max(1, block // 128))


def rows_together(block: int) -> int:
    """Return how many Cholesky rows are read together: as many as stay in registers."""
    return 8 if block <= 2048 else 4


def launch(program: Any, images: int, block: int, *arguments: Any, **constants: int) -> None:
    """Run a program for each image, where its first argument is: perhaps not the current device.

    Args:
        program: what `triton.jit` returns; its type says that it is a plain function.
        images: how many.
        block: the program's BLOCK.
        *arguments: the program's.
        **constants: its others.
    """
    with torch.cuda.device_of(arguments[0]):
        program[(images,)](*arguments, BLOCK=block, **constants, num_warps=warps(block), **OPTIONS)


def greedy_programs(kernels: list[FactoredKernel], k: list[int]) -> list[Picks]:
    """Return the picks of each image, as `greedy_device` does; near-ties may round otherwise.

    Images may differ in n, r and k. Memory O(b(n² + nk)) with the largest n and k, up to 1 GiB of
    kernels at a time. Nothing is read back to the host.
    """
    n = max(len(kernel) for kernel in kernels)
    images = images_at_once(n * n, kernels[0].factor.dtype)
    found = []
    for part in in_parts(len(kernels), images):
        found += _launch(kernels[part], k[part])
    return found


def _launch(kernels: list[FactoredKernel], k: list[int]) -> list[Picks]:
    """Return the picks of images whose kernels are in memory together."""
    b, steps, some = len(kernels), max(k), kernels[0].factor
    full, variance = dense_kernels(kernels)
    n = full.shape[1]
    floor = variance_floor(variance, kernels[0].ridge)
    rows = some.new_empty(b, steps, n)
    order = torch.empty(b, steps, dtype=torch.int64, device=some.device)
    variances = some.new_empty(b, steps)
    block = triton.next_power_of_2(n)
    arguments = (full, variance, floor, rows, order, variances, n, steps)
    launch(_pick_all, b, block, *arguments, ROWS=rows_together(block))
    # Picks of an image beyond its own k mean nothing.
    return [Picks(order[i, :count], variances[i, :count]) for i, count in enumerate(k)]


@triton.jit
# A wrapper that checks types is nothing that Triton can read.
@no_type_check
def _pick_all(
    full, variance, floor, rows, order, variances, n, steps, BLOCK: tl.constexpr, ROWS: tl.constexpr  # noqa: ANN001, N803 (Triton's own types and names)
) -> None:  # fmt: skip
    """Make ``steps`` picks of the image of this program.

    Args:
        full: kernels, [b n n].
        variance: diagonals, [b n]; -inf behind an image's last token.
        floor: see `variance_floor`, [b].
        rows: Cholesky rows, [b steps n]; written and read.
        order: picks, [b steps]; written.
        variances: their conditional variances, [b steps]; written.
        n: tokens of the largest image.
        steps: picks.
        BLOCK: a power of two from n on.
        ROWS: Cholesky rows read together.
    """
    image = tl.program_id(0)
    full += image * n * n
    rows += image * steps * n
    column = tl.arange(0, BLOCK)
    inside = column < n
    left = tl.load(variance + image * n + column, mask=inside, other=float("-inf"))
    least = tl.load(floor + image)
    for step in range(steps):
        # At or below the floor tokens are equal: the lowest that is not picked is next.
        level = tl.where(left > float("-inf"), tl.maximum(left, least), left)
        pick = tl.argmax(level, axis=0, tie_break_left=True)
        best = tl.maximum(tl.max(level, axis=0), least)
        tl.store(order + image * steps + step, pick.to(tl.int64))
        tl.store(variances + image * steps + step, best)
        row = tl.load(full + pick * n + column, mask=inside, other=0.0)
        for start in range(0, step, ROWS):
            before = start + tl.arange(0, ROWS)
            known = before < step
            both = known[:, None] & inside[None, :]
            past = tl.load(rows + before[:, None] * n + column[None, :], mask=both, other=0.0)
            at = tl.load(rows + before * n + pick, mask=known, other=0.0)
            row -= tl.sum(at[:, None] * past, axis=0)
        row = row / tl.sqrt(best)
        tl.store(rows + step * n + column, row, mask=inside)
        # Other threads of the program read what this one has written.
        tl.debug_barrier()
        left = tl.where(column == pick, float("-inf"), left - row * row)
