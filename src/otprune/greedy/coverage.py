"""Greedy coverage: columns are picked whose entries cover the rows; each row by its best column.

A pick changes the terms of those rows only that it covers better than any before, so gains are
kept from pick to pick.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from otprune.greedy.covers import Cover
from otprune.greedy.programs import can_run, checked, images_at_once, in_parts
from otprune.types import PickOrder

Engine = Callable[[list[Cover]], list[Tensor]]


def coverage_picks(covers: list[Cover]) -> list[Tensor]:
    """Return the picks [k_i] of each image: always the column with the largest gain times weight.

    The gain of a column is the sum over rows of what its entry is above the row's largest among the
    picks, 0 before the first. Ties go to the lower index. On a GPU by one program an image where
    that works, without the host; there sums are exact in units of 2^-60 of the largest possible
    one, so that no gain is left by rounding. Otherwise by a loop for each image, in float64, which
    reads back at each pick which rows change.

    O(n) for each row that a pick changes; memory O(rn), padded on a GPU.
    """
    rows = [one.rows for one in covers]
    program = None
    if len({(one.device, one.dtype) for one in rows}) == 1 and all(
        can_run(one, max(one.shape)) for one in rows
    ):
        program = _program(rows[0].device, rows[0].dtype)
    if program is None:
        return [coverage_loop(one) for one in covers]
    numbers = max(len(one) for one in rows) * max(one.shape[1] for one in rows)
    found = []
    for part in in_parts(len(covers), images_at_once(numbers, rows[0].dtype)):
        found += program(covers[part])
    return found


@cache
def _program(device: torch.device, dtype: torch.dtype) -> Engine | None:
    """Return `coverage_programs` if it works on a device, see `checked`."""

    def load() -> Engine:
        from otprune.greedy.triton_coverage import coverage_programs

        return coverage_programs

    def agrees(program: Engine) -> bool:
        generator = torch.Generator().manual_seed(0)
        sample = torch.rand(60, 70, generator=generator, dtype=torch.float64).to(device, dtype)
        weights = torch.rand(41, generator=generator).to(device)
        covers = [
            Cover(sample, 30, torch.arange(8, device=device)),
            Cover(sample[:50, :41], 20, None, weights),
        ]
        both = zip(program(covers), map(coverage_loop, covers), strict=True)
        return all(torch.equal(a, b) for a, b in both)

    return checked(load, agrees)


def coverage_loop(cover: Cover) -> PickOrder:
    """Return the picks of one image; some operations a pick, on any device."""
    rows, k, last, weights = cover
    best = rows.new_zeros(len(rows))
    gain = rows.clamp(min=0).sum(0, dtype=torch.float64)
    barred = torch.zeros_like(gain)
    free = len(gain) if last is None else len(gain) - len(last)
    if last is not None:
        barred[last] = float("-inf")
    order = torch.empty(k, dtype=torch.long, device=rows.device)
    for t in range(k):
        if t == free:
            barred.zero_()
        value = gain
        if weights is not None:
            # A pick's gain is -inf, and NaN times 0.
            value = torch.nan_to_num(gain * weights, nan=float("-inf"), neginf=float("-inf"))
        j = (value + barred).argmax()
        order[t] = j
        changed = (rows[:, j] > best).nonzero()[:, 0]
        part, old = rows[changed], best[changed]
        new = part[:, j]
        before = (part - old[:, None]).clamp_(min=0).sum(0, dtype=torch.float64)
        after = (part - new[:, None]).clamp_(min=0).sum(0, dtype=torch.float64)
        gain += after - before
        best[changed] = new
        gain[j] = float("-inf")
    return order
