"""Rank correlation, in bulk and with exact permutation tests."""

import math

import numpy as np
from scipy.stats import permutation_test, rankdata

EXACT_UP_TO = 8
"""Methods up to which every permutation is tried (8! = 40320)."""

_DRAWS = 20_000
_SEED = 0


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation along the last axis: [... m], [... m] to [...].

    Pearson's correlation of average ranks, as `scipy.stats.spearmanr` one pair at a time. NaN where
    an entry is NaN, where all entries of one side are equal, and for fewer than two.
    """
    x, y = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    known = ~(np.isnan(x).any(-1) | np.isnan(y).any(-1))
    product = (_unit_ranks(x) * _unit_ranks(y)).sum(-1)
    return np.where(known, product, np.nan)


def mean_spearman_p(x: np.ndarray, y: np.ndarray) -> tuple[float, int]:
    """Return the two-sided permutation p of the mean over rows of Spearman's correlation.

    The rows are benchmarks, the m columns methods. One permutation of the methods is applied to
    all rows at once: distances of the same methods are alike on all benchmarks, so benchmarks are
    no independent repetitions. With m methods p is at least 2/m!: 1/60 for five. All m! are tried
    for m up to `EXACT_UP_TO`, else so many drawn ones, whose number is returned as well.

    Args:
        x: [t m], no NaN.
        y: [t m], no NaN.

    Returns:
        p, NaN where some row's correlation is undefined or there are no rows; permutations tried.
    """
    rows, methods = x.shape
    if rows == 0 or methods < 2 or np.isnan(spearman(x, y)).any():
        return math.nan, 0
    # The correlation of permuted methods is a sum of entries of one matrix, a row each.
    products = _unit_ranks(y).T @ _unit_ranks(x) / rows
    place = np.arange(methods)

    def statistic(order: np.ndarray, axis: int) -> np.ndarray:
        moved = np.moveaxis(order, axis, -1).astype(int)
        # Rounded: equal correlations near 0 differ in their last bits, and must count as equal.
        return products[place, moved].sum(-1).round(12)

    tried = math.factorial(methods) if methods <= EXACT_UP_TO else _DRAWS
    found = permutation_test(
        (place,),
        statistic,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=tried,
        rng=np.random.default_rng(_SEED),
    )
    return float(found.pvalue), tried


def _unit_ranks(values: np.ndarray) -> np.ndarray:
    """Return average ranks along the last axis, centred and of norm one; NaN where all are tied."""
    values = np.asarray(values, dtype=float)
    ranks = rankdata(values, axis=-1)
    ranks = ranks - ranks.mean(-1, keepdims=True)
    norm = np.sqrt((ranks**2).sum(-1, keepdims=True))
    return np.divide(ranks, norm, out=np.full_like(ranks, np.nan), where=norm > 0)
