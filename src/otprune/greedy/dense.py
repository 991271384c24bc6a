"""Greedy log-determinant with the kernel in full: the quickest way for a few hundred tokens."""

import torch

from otprune.greedy.picks import PICKED, Picks, variance_floor, with_leftovers
from otprune.kernels import FactoredKernel


def greedy_dense(kernel: FactoredKernel, k: int) -> Picks:
    """Return k greedy picks; O(n²r + nk²) time, O(n² + nk) memory.

    Reads each pick on the host, which is free on a CPU; on CUDA use `otprune.greedy.device`.
    """
    full = kernel.dense()
    variance = full.diagonal().clone()
    floor = float(variance_floor(variance, kernel.ridge))
    factor = full.new_empty(k, len(full))
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
        torch.addmv(full[j], past.T, past[:, j], beta=scale, alpha=-scale, out=row)
        variance.addcmul_(row, row, value=-1)
        variance[j] = PICKED
    return with_leftovers(order, variances, floor, k, variance)
