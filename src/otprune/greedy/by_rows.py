"""The plain rule on a CPU: one row of the kernel for each pick."""

from collections.abc import Callable

import torch
from torch import Tensor

from otprune.compiled import GreedyState, Loops, RowsOfKernel, loops_for
from otprune.greedy.picks import PICKED, Picks, variance_floor, with_leftovers
from otprune.kernels import FactoredKernel

_FETCH = 16
"""Rows computed at once. More are computed in vain, fewer cost a pass over the factor each."""


def greedy_dense(kernel: FactoredKernel, k: int) -> Picks:
    """Return k greedy picks from the full kernel, which is fastest for a few hundred tokens.

    O(n²r + nk²) time, O(n² + nk) memory.
    """
    full = kernel.dense()
    loops = loops_for(full)
    if loops is not None:
        diagonal = full.diagonal()
        state, floor = GreedyState(diagonal, k), float(variance_floor(diagonal, kernel.ridge))
        loops.logdet_picks(RowsOfKernel(full), state, floor)
        return _finished(state, floor)
    return _greedy(full.diagonal().clone(), kernel.ridge, k, lambda j, _: full[j])


def greedy_row_cache(kernel: FactoredKernel, k: int) -> Picks:
    """Return k greedy picks from rows computed in batches: for some thousand narrow tokens.

    A row of the kernel costs a pass over its whole factor, many rows at once little more than one.
    So when the row of the next pick is missing, it is computed together with those of the tokens
    with the next largest variances, many of which are picked later. Which rows are computed depends
    on the tokens alone, so a smaller budget is a prefix to the last bit. O(nk(r + k)) time,
    O(n(k + rows computed)) memory.
    """
    diagonal = kernel.diagonal()
    loops = loops_for(diagonal)
    if loops is not None:
        return _from_fetched_rows(loops, kernel, diagonal, k)
    return _greedy(diagonal, kernel.ridge, k, _RowsOneByOne(kernel))


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


def _from_fetched_rows(loops: Loops, kernel: FactoredKernel, diagonal: Tensor, k: int) -> Picks:
    """The same in compiled loops, which come back for the next rows."""
    state, floor = GreedyState(diagonal, k), float(variance_floor(diagonal, kernel.ridge))
    known = FetchedRows(kernel, k)
    while True:
        loops.logdet_picks(known.rows(), state, floor)
        if state.picked == k or float(state.variance.max()) <= floor:
            return _finished(state, floor)
        known.fetch(state.variance)


def _finished(state: GreedyState, floor: float) -> Picks:
    """Return the picks of a compiled run, completed if no token had a gain left."""
    order, best = state.order[: state.picked], state.best[: state.picked]
    return with_leftovers(order.tolist(), best.tolist(), floor, len(state.order), state.factor[0])


def _leaders(variance: Tensor, fetched: Tensor, j: int) -> Tensor:
    """Return the tokens whose rows are computed when j's is missing: j and the likely next ones."""
    open_to_fetch = variance.masked_fill(fetched, PICKED)
    count = min(_FETCH, int((open_to_fetch > PICKED).sum()))
    leaders = open_to_fetch.topk(count).indices
    if not bool((leaders == j).any()):
        # Ties at the top.
        leaders[-1] = j
    return leaders


class FetchedRows:
    """Rows of a kernel for a compiled loop, computed as they are needed.

    Args:
        kernel: [n n].
        k: how many tokens will be picked.
    """

    def __init__(self, kernel: FactoredKernel, k: int) -> None:
        n = len(kernel)
        self._kernel = kernel
        # Rarely are twice as many rows computed as tokens picked; room for more is then made.
        self._rows = kernel.factor.new_empty(min(n, 2 * k + _FETCH), n)
        self._slot = torch.full((n,), -1)
        self._count = 0

    def rows(self) -> RowsOfKernel:
        """Return the rows that are known."""
        return RowsOfKernel(self._rows, self._slot)

    def fetch(self, gain: Tensor) -> None:
        """Compute the rows of the token with the largest gain, and of the likely next ones."""
        leaders = _leaders(gain, self._slot >= 0, int(gain.argmax()))
        start, stop = self._count, self._count + len(leaders)
        if stop > len(self._rows):
            more = min(len(self._slot), 2 * len(self._rows)) - len(self._rows)
            self._rows = torch.cat([self._rows, self._rows.new_empty(more, len(self._slot))])
        self._kernel.rows(leaders, self._rows[start:stop])
        self._slot[leaders] = torch.arange(start, stop)
        self._count = stop


class _RowsOneByOne:
    """Rows of a kernel, computed for the next pick and the likely ones after it together."""

    def __init__(self, kernel: FactoredKernel) -> None:
        self._kernel = kernel
        self._rows: dict[int, Tensor] = {}
        self._fetched = torch.zeros(len(kernel), dtype=torch.bool)

    def __call__(self, j: int, variance: Tensor) -> Tensor:
        if j not in self._rows:
            leaders = _leaders(variance, self._fetched, j)
            self._rows |= zip(leaders.tolist(), self._kernel.rows(leaders), strict=True)
            self._fetched[leaders] = True
        return self._rows.pop(j)
