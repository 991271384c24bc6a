"""Greedy maximisation of log det of a kernel's principal sub-matrix, exact, on CPU and CUDA.

One rule in several implementations. At each step all pick the token with the largest conditional
variance given the tokens already picked (its marginal gain is the logarithm), by incremental
Cholesky factorisation (Chen, Zhang & Zhou 2018, arXiv 1709.05135, Algorithm 1):

- `by_rows`: one row of the kernel for each pick, from the full kernel (few tokens) or computed in
  batches (thousands of tokens with few channels); CPU.
- `active_set`: rows over the tokens that can still be picked next; CPU, many tokens.
- `device`: a padded batch, without reading back to the host for each pick; CUDA.
- `triton_program`: all picks of an image in one program of the GPU; CUDA with Triton, few tokens.
- `reference`: the released code's order of operations, for parity.

Other greedy rules are beside it, each with a loop and a program an image for CUDA: CDPruner's
weighted determinants (`conditional`), the token farthest from its picks (`max_min_device`;
`max_min` for many tokens) and coverage (`coverage`). `programs` says where programs are used.
"""

from otprune.greedy.dispatch import greedy_logdet, greedy_logdet_batch
from otprune.greedy.picks import Picks

__all__ = ["Picks", "greedy_logdet", "greedy_logdet_batch"]
