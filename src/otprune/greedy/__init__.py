"""Greedy maximisation of log det of a kernel's principal sub-matrix, exact, on CPU and CUDA.

One rule, several ways to run it. All pick, at each step, the token with the largest conditional
variance given the tokens already picked (its marginal gain is the logarithm), by incremental
Cholesky factorisation (Chen, Zhang & Zhou 2018, arXiv 1709.05135, Algorithm 1):

- `by_rows`: a row of the kernel a pick, from the kernel in full (few tokens) or fetched in batches
  (thousands of tokens with few channels); CPU.
- `active_set`: rows only over the tokens that can still win; CPU, many tokens.
- `device`: a padded batch without a host read per pick; CUDA.
- `reference`: the released code's order of operations, for parity.
"""

from otprune.greedy.dispatch import greedy_logdet, greedy_logdet_batch
from otprune.greedy.picks import Picks

__all__ = ["Picks", "greedy_logdet", "greedy_logdet_batch"]
