"""Greedy log-determinant over the tokens that can be picked next; exact, for many tokens on a CPU.

Conditional variances only fall as tokens are picked, so a value computed earlier is an upper bound
now (Minoux 1978, lazy evaluation). Each round therefore

1. takes the tokens with the largest variances as the *active set*, and the largest variance
   outside it as the *bound*;
2. picks inside the active set, one token at a time, with kernel rows over that set only, as long
   as the largest variance there is above the bound: no token outside can then have a larger one;
3. *settles* the round: updates all n variances for the round's picks together, in one matrix
   product and one triangular solve.

A plain loop does step 3 after every pick, and reads the whole factor from memory each time. The
result is the same; how much is saved depends on how much the leading variances differ.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from otprune.greedy.picks import PICKED, Picks, variance_floor, with_leftovers
from otprune.kernels import FactoredKernel

_ACTIVE = 256
"""Smallest size of the active set: its rows of the factor fit in a core's cache."""

_SHARE = 48
"""Above 12 288 tokens one in 48 is active: settling all tokens then costs more than a round."""

_ROUND = 64
"""Largest number of picks in a round, which bounds the width of the triangular solve."""


def greedy_active_set(kernel: FactoredKernel, k: int) -> Picks:
    """Return k greedy picks; memory O(n(r + k)), time at most O(nk(r + k))."""
    run = _Run.start(kernel, k)
    while run.picked < k and run.play_round():
        pass
    return with_leftovers(run.order, run.variances, run.floor, k, run.variance)


def _active_size(n: int) -> int:
    return min(n, max(_ACTIVE, n // _SHARE))


@dataclass(slots=True)
class _Run:
    """State of a run, valid for the first ``picked`` tokens."""

    kernel: FactoredKernel
    k: int
    floor: float
    variance: Tensor
    """[n] conditional variances; -inf for picked tokens."""
    factor: Tensor
    """[n k] rows of the Cholesky factor, the first ``picked`` columns filled."""
    rows: Tensor
    """[m r] buffer for the active set's rows of the kernel's factor."""
    active_factor: Tensor
    """[m k] buffer for the active set's rows of the Cholesky factor."""
    columns: Tensor
    """[n * picks] buffer for settling a round; new memory for each round would cost more."""
    order: list[int]
    variances: list[float]
    picked: int = 0

    @classmethod
    def start(cls, kernel: FactoredKernel, k: int) -> "_Run":
        variance = kernel.diagonal()
        n, size = len(kernel), _active_size(len(kernel))
        return cls(
            kernel=kernel,
            k=k,
            floor=float(variance_floor(variance, kernel.ridge)),
            variance=variance,
            factor=variance.new_empty(n, k),
            rows=variance.new_empty(size, kernel.factor.shape[1]),
            active_factor=variance.new_empty(size, k),
            columns=variance.new_empty(n * min(_ROUND, k)),
            order=[],
            variances=[],
        )

    def play_round(self) -> bool:
        """Pick inside one active set and settle; return False once no token has a gain left."""
        first = int(self.variance.argmax())
        if float(self.variance[first]) <= self.floor:
            return False
        active, bound = self._active_set(first)
        rows = self._pick(active, bound)
        if len(self.order) < self.k:
            self._settle(rows)
        self.picked = len(self.order)
        return True

    def _active_set(self, first: int) -> tuple[Tensor, float]:
        """Return the positions of the active set, ascending, and the largest variance outside."""
        size = _active_size(len(self.variance))
        if size == len(self.variance):
            return torch.arange(size), self.floor
        values, positions = self.variance.topk(size + 1)
        active = positions[:size]
        if not bool((active == first).any()):
            # Ties at the top: the lowest position must be among the candidates.
            active[-1] = first
        return active.sort().values, max(float(values[size]), self.floor)

    def _pick(self, active: Tensor, bound: float) -> Tensor:
        """Pick while the next pick is certain; return the picks' rows of the factor, [picks k]."""
        kernel, start = self.kernel, self.picked
        most = min(_ROUND, self.k - start, len(active))
        rows = torch.index_select(kernel.factor, 0, active, out=self.rows)
        factor = self.active_factor
        torch.index_select(self.factor[:, :start], 0, active, out=factor[:, :start])
        variance = self.variance[active]
        local: list[int] = []
        for t in range(start, start + most):
            j = int(variance.argmax())
            best = float(variance[j])
            # The first pick is the maximum over all tokens; a later one must be above the bound.
            if local and best <= bound:
                break
            local.append(j)
            scale = best**-0.5
            row = torch.mv(rows, kernel.left_rows(active[j : j + 1])[0]).mul_(kernel.scale)
            row[j] += kernel.ridge
            row = torch.addmv(row, factor[:, :t], factor[j, :t], beta=scale, alpha=-scale)
            factor[:, t] = row
            variance.addcmul_(row, row, value=-1)
            variance[j] = PICKED
            self.variances.append(best)
        self.order.extend(active[local].tolist())
        return factor[local, : start + len(local)]

    def _settle(self, rows: Tensor) -> None:
        """Compute the factor's next columns for all tokens and update their variances."""
        kernel, start, stop = self.kernel, self.picked, len(self.order)
        picks = torch.tensor(self.order[start:])
        columns = self.columns[: len(kernel) * len(picks)].view(len(kernel), len(picks))
        torch.mm(kernel.factor, kernel.left_rows(picks).T, out=columns).mul_(kernel.scale)
        columns[picks, torch.arange(stop - start)] += kernel.ridge
        columns.addmm_(self.factor[:, :start], rows[:, :start].T, alpha=-1)
        among_picks = rows[:, start:].tril()
        torch.linalg.solve_triangular(among_picks.T, columns, upper=True, left=False, out=columns)
        self.factor[:, start:stop] = columns
        self.variance -= columns.square().sum(1)
        self.variance[picks] = PICKED
