"""Greedy log-determinant in the released code's order of operations, for parity only."""

import torch
from jaxtyping import Float
from torch import Tensor

from otprune.greedy.picks import PICKED, Picks


def greedy_reference(
    kernel: Float[Tensor, "n n"], k: int, factor_dtype: torch.dtype | None = None
) -> Picks:
    """Return k greedy picks from a full kernel, as the released code computes them.

    ``factor_dtype`` is the dtype of the Cholesky rows: the released code keeps them in the model's
    (half) precision while the kernel is float32. Rounding then changes picks; see docs/otprune.md.
    Unlike there a picked token is masked; without rounding it could not be picked again.
    """
    factor_dtype = factor_dtype or kernel.dtype
    variance = kernel.diagonal().clone()
    factor = torch.zeros(k, len(kernel), dtype=factor_dtype, device=kernel.device)
    order = torch.empty(k, dtype=torch.long, device=kernel.device)
    variances = kernel.new_empty(k)
    for t in range(k):
        j = variance.argmax(0, keepdim=True)
        best = variance[j]
        order[t : t + 1], variances[t : t + 1] = j, best
        past = factor[:t]
        row = (kernel[j][0] - past[:, j][:, 0] @ past) / best.sqrt()
        factor[t] = row
        variance = (variance - row * row).index_fill_(0, j, PICKED)
    return Picks(order, variances)
