"""Greedy coverage in one program an image, for GPUs; optional, it needs Triton.

Gains stay in registers. A pick lists the rows that it covers better than any before, and only these
are read. Gains are whole numbers of a small unit: what is added and later taken away leaves exactly
nothing, in whatever order.
"""

from typing import no_type_check

import torch

# Triton comes with torch's builds for CUDA, and is in no environment without them.
import triton  # type: ignore[import-not-found]
import triton.language as tl  # type: ignore[import-not-found]
from torch import Tensor

from otprune.greedy.covers import Cover, padded_rows, turns
from otprune.greedy.programs import on_device
from otprune.greedy.triton_program import launch

_LARGEST_SCALE = 2.0**100
"""Units in 1, at most: float32 holds no much larger number."""


def rows_together(block: int) -> int:
    """Return how many rows are read together: as many as stay in registers."""
    return 4 if block <= 2048 else 2


def coverage_programs(covers: list[Cover]) -> list[Tensor]:
    """Return the picks of each image, as `coverage_picks` does. Memory O(b(rn + k))."""
    rows = padded_rows(covers).contiguous()
    b, r, n = rows.shape
    steps = max(one.k for one in covers)
    weights = torch.ones(b, n, dtype=torch.float32, device=rows.device)
    for weight, one in zip(weights, covers, strict=True):
        if one.weights is not None:
            weight[: len(one.weights)] = one.weights
    free = [one.rows.shape[1] - (0 if one.last is None else len(one.last)) for one in covers]
    order = torch.empty(b, steps, dtype=torch.int64, device=rows.device)
    changed = torch.empty(b, r, dtype=torch.int32, device=rows.device)
    old, new = rows.new_empty(b, r), rows.new_empty(b, r)
    block = triton.next_power_of_2(n)
    arguments = (
        rows, _scales(rows), weights, turns(covers, rows), on_device(free, rows), changed, old, new,
        order, r, n, steps,
    )  # fmt: skip
    constants = {"COVERED": triton.next_power_of_2(r), "ROWS": rows_together(block)}
    launch(_cover_all, b, block, *arguments, **constants)
    # Picks of an image beyond its own k mean nothing.
    return [order[i, : one.k] for i, one in enumerate(covers)]


def _scales(rows: Tensor) -> Tensor:
    """Return the units in 1, a power of two for each image, so that all gains are below 2^60."""
    bound = rows.amax((1, 2)).double().clamp(min=0) * rows.shape[1]
    # The quotient is a power of two, and exact.
    scale = torch.frexp(bound).mantissa / bound * 2.0**60
    return scale.nan_to_num(1.0).clamp(max=_LARGEST_SCALE).to(rows.dtype)


@triton.jit
# A wrapper that checks types is nothing that Triton can read.
@no_type_check
def _cover_all(
    rows, scales, weights, turns, free, changed, old, new, order, r, n, steps,  # noqa: ANN001 (Triton's own types and names)
    BLOCK: tl.constexpr, COVERED: tl.constexpr, ROWS: tl.constexpr,  # noqa: N803
) -> None:  # fmt: skip
    """Make ``steps`` picks of the image of this program.

    Args:
        rows: [b r n].
        scales: units in 1, [b].
        weights: factors of gains, [b n].
        turns: see `turns`, [b n].
        free: columns whose turn is 0, [b].
        changed: rows that a pick changes, [b r]; written and read.
        old: their largest entries before, [b r]; written and read.
        new: their largest entries after it, [b r]; written and read.
        order: picks, [b steps]; written.
        r: rows of the largest image.
        n: columns of the widest.
        steps: picks.
        BLOCK: a power of two from n on.
        COVERED: a power of two from r on.
        ROWS: rows read together.
    """
    image = tl.program_id(0)
    rows += image * r * n
    changed += image * r
    old += image * r
    new += image * r
    column = tl.arange(0, BLOCK)
    inside = column < n
    each = tl.arange(0, COVERED)
    covered = each < r
    scale = tl.load(scales + image)
    weight = tl.load(weights + image * n + column, mask=inside, other=0.0).to(tl.float64)
    turn = tl.load(turns + image * n + column, mask=inside, other=2)
    at_once = tl.load(free + image)
    gain = tl.zeros([BLOCK], dtype=tl.int64)
    for start in range(0, r, ROWS):
        which = start + tl.arange(0, ROWS)
        both = (which < r)[:, None] & inside[None, :]
        entries = tl.load(rows + which[:, None] * n + column[None, :], mask=both, other=0.0)
        gain += tl.sum((tl.maximum(entries, 0.0) * scale).to(tl.int64), axis=0)
    # Of the entries' own type.
    most = tl.load(rows + each * n, mask=covered, other=0.0) * 0.0
    for step in range(steps):
        value = gain.to(tl.float64) / scale.to(tl.float64) * weight
        may = (turn == 0) | ((turn == 1) & (step >= at_once))
        pick = tl.argmax(tl.where(may, value, float("-inf")), axis=0, tie_break_left=True)
        tl.store(order + image * steps + step, pick.to(tl.int64))
        turn = tl.where(column == pick, 2, turn)
        entry = tl.load(rows + each * n + pick, mask=covered, other=0.0)
        rises = entry > most
        place = tl.cumsum(rises.to(tl.int32), axis=0) - 1
        count = tl.sum(rises.to(tl.int32), axis=0)
        tl.store(changed + place, each, mask=rises)
        tl.store(old + place, most, mask=rises)
        tl.store(new + place, entry, mask=rises)
        most = tl.maximum(most, entry)
        # Other threads of the program read what this one has written.
        tl.debug_barrier()
        for start in range(0, count, ROWS):
            item = start + tl.arange(0, ROWS)
            some = item < count
            which = tl.load(changed + item, mask=some, other=0)
            before = tl.load(old + item, mask=some, other=0.0)
            after = tl.load(new + item, mask=some, other=0.0)
            both = some[:, None] & inside[None, :]
            entries = tl.load(rows + which[:, None] * n + column[None, :], mask=both, other=0.0)
            lost = (tl.maximum(entries - before[:, None], 0.0) * scale).to(tl.int64)
            left = (tl.maximum(entries - after[:, None], 0.0) * scale).to(tl.int64)
            gain -= tl.sum(lost - left, axis=0)
        # The lists are written anew only when all threads have read them.
        tl.debug_barrier()
