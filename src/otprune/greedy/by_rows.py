"""The plain rule on a CPU: one row of the kernel for each pick."""

from collections.abc import Callable

import torch
from torch import Tensor

from otprune.greedy.picks import PICKED, Picks, variance_floor, with_leftovers
from otprune.kernels import FactoredKernel

_FETCH = 32
"""Rows computed at once; 8 and 16 were slower on three kinds of tokens out of four."""


def greedy_dense(kernel: FactoredKernel, k: int) -> Picks:
    """Return k greedy picks from the full kernel, which is fastest for a few hundred tokens.

    O(n²r + nk²) time, O(n² + nk) memory.
    """
    full = kernel.dense()
    return _greedy(full.diagonal().clone(), kernel.ridge, k, lambda j, _: full[j])


def greedy_row_cache(kernel: FactoredKernel, k: int) -> Picks:
    """Return k greedy picks from rows computed in batches: for some thousand narrow tokens.

    A row of the kernel costs a pass over its whole factor, many rows at once little more than one.
    So when the row of the next pick is missing, it is computed together with those of the tokens
    with the next largest variances, many of which are picked later. Which rows are computed depends
    on the tokens alone, so a smaller budget is a prefix to the last bit. O(nk(r + k)) time,
    O(n(k + rows computed)) memory.
    """
    return _greedy(kernel.diagonal(), kernel.ridge, k, _FetchedRows(kernel))


def _greedy(
    variance: Tensor, ridge: float, k: int, kernel_row: Callable[[int, Tensor], Tensor]
) -> Picks:
    """Pick from ``variance`` [n], the kernel's diagonal; ``kernel_row(j, variance)`` is row j.

    Reads each pick back, which costs nothing on a CPU.
    """
    floor = float(variance_floor(variance, ridge))
    factor = variance.new_empty(k, len(variance))
    order: list[int] = []
    variances: list[float] = []
    for t in range(k):
        j = int(variance.argmax())
        best = float(variance[j])
        if best <= floor:
            break
        order.append(j)
        variances.append(best)
        past, row = factor[:t], factor[t]
        scale = best**-0.5
        source = kernel_row(j, variance)
        torch.addmv(source, past.T, past[:, j], beta=scale, alpha=-scale, out=row)
        variance.addcmul_(row, row, value=-1)
        variance[j] = PICKED
    return with_leftovers(order, variances, floor, k, variance)


class _FetchedRows:
    """Rows of a kernel, computed for the next pick and the likely ones after it together."""

    def __init__(self, kernel: FactoredKernel) -> None:
        self._kernel = kernel
        self._rows: dict[int, Tensor] = {}
        self._fetched = torch.zeros(len(kernel), dtype=torch.bool)

    def __call__(self, j: int, variance: Tensor) -> Tensor:
        if j not in self._rows:
            open_to_fetch = variance.masked_fill(self._fetched, PICKED)
            count = min(_FETCH, int((open_to_fetch > PICKED).sum()))
            leaders = open_to_fetch.topk(count).indices
            if not bool((leaders == j).any()):
                # Ties at the top.
                leaders[-1] = j
            self._rows |= zip(leaders.tolist(), self._kernel.rows(leaders), strict=True)
            self._fetched[leaders] = True
        return self._rows.pop(j)
