r"""W2Greedy: keep the tokens nearest to all tokens in the Gaussian 2-Wasserstein distance.

The distance that OTPrune starts from (arXiv 2602.20205, Eq. 3), zero-mean Gaussians with second
moments S = UᵀU/n of all tokens and S_C = U_CᵀU_C/k of the kept ones C, is

    W₂² = tr S + tr S_C - 2 f(C),    f(C) = tr (S^½ S_C S^½)^½.

1. On unit-norm tokens tr S = tr S_C = 1 for every C, so no term is neglected: the distance falls
   exactly as f rises. (OTPrune scales channels instead, where tr S_C depends on C.)
2. The non-zero eigenvalues of S^½ S_C S^½ are those of M_C / (nk), M = (U Uᵀ)², M_C its rows and
   columns in C. So f(C) = tr (M_C^½) / √(nk): for given k, maximise F(C) = Σ_i μ_i(M_C)^½.
3. √x = (1/2π) ∫₀^∞ λ^{-½} log(1 + x/λ) dλ, hence

       F(C) = (1/2π) ∫₀^∞ λ^{-½} log det (I + M_C/λ) dλ,

   a positive mixture of log-determinants of I + PSD. Each is monotone and submodular in C, so F is,
   and the greedy rule reaches at least (1 - 1/e) of its maximum: of the distance's own cross term,
   not of a substitute. The factor with k in f is the same for all C of one size, so picks are
   nested.
4. With λ = e^s the trapezoidal rule of step h = 2 integrates √x to 5e-5 (the integrand is analytic
   in |Im s| < π). The gain of a token is then Σ_q w_q log(v_q / λ_q), w_q = λ_q^½, where v_q is its
   conditional variance under λ_q I + M: one incremental Cholesky per node, all with the same picks.
5. The tails of the sum are closed forms. Above n·max M_ii, log(1 + x/λ) = x/λ: a geometric series
   times M_ii. Below the lowest node the variances do not depend on λ, nor do the differences
   between tokens, so the weight of that tail is added to the lowest node. It is at 1e-6 max M_ii,
   below which eigenvalues of real tokens' M hardly contribute.
6. Everything is float64: at the lowest nodes the conditional variances of tokens that the picks
   nearly span equal the node, and in float32 the rounding of M would decide. Rows of the factor are
   clamped to the exact bound |row_i|² <= v_i - λ, so that rounding errors cannot grow.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from otprune.compiled import Loops, MixtureState, RowsOfKernel, loops_for
from otprune.greedy.by_rows import FetchedRows
from otprune.kernels import FactoredKernel, check_gib, squared_gram, unit_rows
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens

_STEP = 2.0
_LOWEST = 1e-6
_DENSE_UP_TO = 1024

_EXACT_BELOW = 5.0
"""Nodes above this many times the largest moment keep their factors in float32 in compiled loops.

Their conditional variances, float64, are nearly the nodes: gains change by less than 1e-8.
"""


@dataclass(frozen=True, slots=True)
class W2Greedy(Selector):
    """Greedy maximiser of the cross term of the Gaussian W2 distance on unit-norm tokens.

    Ours; the derivation is at the start of this file. All n tokens are candidates at each step.
    Nested. Computed in float64 for tokens of any dtype. Cost: O(Qnk²) with Q quadrature nodes (12
    at n = 576, one more for every factor e² in n), and for the rows of M O(n²(d + n) / 2) up to
    1024 tokens, O(nd min(n, d) + nk min(n, d)) beyond. Memory O(Qnk), and O(n²) or O(d²) for M's
    factor.
    """

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        moments = squared_gram(unit_rows(tokens.double()))
        diagonal = moments.diagonal()
        nodes, weights, linear = _quadrature(diagonal)
        full = moments.dense() if len(tokens) <= _DENSE_UP_TO else None
        check_gib(
            f"the {len(nodes)} factors of {k} picks among {len(tokens)} tokens",
            len(nodes) * k * len(tokens),
            diagonal.dtype,
        )
        loops = loops_for(diagonal)
        if loops is not None:
            exact = int((nodes < _EXACT_BELOW * diagonal.max()).sum())
            state = MixtureState(nodes, weights, diagonal, linear * diagonal, k, exact)
            return _compiled(loops, state, moments, full)

        # v[q, i]: variance of token i under nodes[q] I + M, given the picks.
        variance = diagonal + nodes[:, None]
        offset = linear * diagonal
        factor = variance.new_empty(len(nodes), k, len(tokens))
        order = torch.empty(k, dtype=torch.long, device=tokens.device)
        for t in range(k):
            j = (weights @ variance.log() + offset).argmax(0, keepdim=True)
            order[t : t + 1] = j
            past = factor[:, :t]
            row = (moments.rows(j) if full is None else full[j]).expand_as(variance).clone()
            row.index_add_(1, j, nodes[:, None])
            if t:
                row -= torch.bmm(past[:, :, j].mT, past)[:, 0]
            row /= variance[:, j].sqrt()
            most = (variance - nodes[:, None]).sqrt()
            row = torch.maximum(torch.minimum(row, most), -most)
            factor[:, t] = row
            variance = torch.maximum(variance - row * row, nodes[:, None])
            offset.index_fill_(0, j, float("-inf"))
        return order


def _compiled(
    loops: Loops, state: MixtureState, moments: FactoredKernel, full: Tensor | None
) -> PickOrder:
    """The same in compiled loops; rows of the moments are computed several at once."""
    if full is not None:
        loops.w2_picks(RowsOfKernel(full), state)
        return state.order
    known = FetchedRows(moments, len(state.order))
    while state.picked < len(state.order):
        loops.w2_picks(known.rows(), state)
        if state.picked < len(state.order):
            known.fetch(state.gain)
    return state.order


def _quadrature(diagonal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return nodes [q] and weights [q] for the logarithms, and the factor of the linear tail."""
    largest = diagonal.max()
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    count = math.ceil(math.log(len(diagonal) / _LOWEST) / _STEP) + 1
    steps = torch.arange(count, dtype=diagonal.dtype, device=diagonal.device)
    nodes = largest * _LOWEST * torch.exp(_STEP * steps)
    weights = nodes.sqrt()
    ratio = math.exp(-_STEP / 2)
    weights[0] /= 1 - ratio
    linear = ratio / (1 - ratio) / nodes[-1].sqrt()
    return nodes, weights, linear
