"""Tests between two rows that answered the same documents.

Which test (`choose_test`): McNemar's mid-p where the headline is a mean of right and wrong, every
document has an image of its own and neither row has seeds to average; it is the better of the two
in level and power (Fagerland, Lydersen, Laake 2013). A sign-flip permutation test everywhere else:
for scores that are not 0 or 1, for headlines that are no mean, for seeds, and where questions share
an image, because McNemar takes documents for independent and then finds too much. What is exchanged
is a whole cluster between the two rows, after which both headlines are computed anew.
"""

import gc
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.statistics.gather import TaskSamples

PERMUTATIONS = 9999
MCNEMAR, EXACT, SAMPLED = "mcnemar-midp", "permutation-exact", "permutation"
BOOTSTRAP = "bootstrap"

_ENUMERATED = 12
"""Clusters in which two rows differ up to which all 2^n exchanges are tried."""

_BLOCK = 2_000_000
_TIE = 1e-9
"""Statistics this close, relative to the observed one, are equal but for rounding."""

Pair = tuple[str, str]


def mcnemar_midp(only_a: int, only_b: int) -> float:
    """Return McNemar's two-sided mid-p.

    Args:
        only_a: documents that only a has right.
        only_b: documents that only b has right.

    Returns:
        The exact p less half of the observed outcome's probability on both sides; 1 without a
        document in which they differ.
    """
    if only_a == only_b:
        return 1.0
    exact = cast(Any, mcnemar([[0, only_a], [only_b, 0]], exact=True)).pvalue
    return float(exact - binom.pmf(min(only_a, only_b), only_a + only_b, 0.5))


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values of one family adjusted after Holm; NaN stay, and do not count."""
    p = np.asarray(p, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    there = ~np.isnan(p)
    if there.any():
        # statsmodels collects garbage at every call, which takes long unless objects are frozen.
        gc.freeze()
        try:
            adjusted[there] = multipletests(p[there], method="holm")[1]
        finally:
            gc.unfreeze()
    return adjusted


def discordant(samples: TaskSamples, a: str, b: str) -> int:
    """Return in how many documents two rows have different values, seeds averaged."""
    return int((samples.values[a].mean(axis=0) != samples.values[b].mean(axis=0)).sum())


def choose_test(samples: TaskSamples, a: str, b: str) -> str:
    """Return which test fits two rows: `MCNEMAR`, `EXACT` or `SAMPLED`."""
    own, other = samples.values[a], samples.values[b]
    single = len(own) == 1 and len(other) == 1
    levels = np.unique(np.concatenate([own.ravel(), other.ravel()]))
    yes_no = len(levels) <= 2 and (len(levels) < 2 or levels[0] == 0)
    plain_mean = benchmark(samples.task).aggregation.plain_mean
    if plain_mean and samples.alone and single and yes_no:
        return MCNEMAR
    return EXACT if len(_differing(samples, a, b)) <= _ENUMERATED else SAMPLED


def compare_pairs(
    samples: TaskSamples,
    pairs: Sequence[Pair],
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[Pair, tuple[str, float]]:
    """Return the test and two-sided p-value of each pair of rows.

    Args:
        samples: of one model and task.
        pairs: of rows.
        permutations: exchanges drawn where there are too many to try all; the p-value is then
            (1 + those at least as extreme) / (1 + permutations).
        seed: of the exchanges, the same ones for all pairs.
    """
    names = {pair: choose_test(samples, *pair) for pair in pairs}
    found = {pair: _mcnemar(samples, *pair) for pair in pairs if names[pair] == MCNEMAR}
    found |= {pair: _exact(samples, *pair) for pair in pairs if names[pair] == EXACT}
    found |= _sampled(samples, [p for p in pairs if names[p] == SAMPLED], permutations, seed)
    return {pair: (names[pair], found[pair]) for pair in pairs}


def _mcnemar(samples: TaskSamples, a: str, b: str) -> float:
    own, other = samples.values[a][0], samples.values[b][0]
    return mcnemar_midp(int((own > other).sum()), int((own < other).sum()))


def _differing(samples: TaskSamples, a: str, b: str) -> np.ndarray:
    """Return the clusters in which exchanging the rows changes a sum."""
    own, other = _matched(samples, a, b)
    return np.flatnonzero((own != other).any(axis=(0, 2)))


def _matched(samples: TaskSamples, a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
    """Return sums ``[s C t]`` of both, seed by seed, or each with each if their numbers differ."""
    own, other = samples.sums[a], samples.sums[b]
    if len(own) == len(other):
        return own, other
    return np.repeat(own, len(other), axis=0), np.tile(other, (len(own), 1, 1))


def _statistic(
    samples: TaskSamples, own: np.ndarray, other: np.ndarray, moved: np.ndarray
) -> np.ndarray:
    """Return the difference of headlines ``[P]`` after sums ``[P s t]`` moved from other to own."""
    left = samples.score(own.sum(axis=1) + moved)
    right = samples.score(other.sum(axis=1) - moved)
    return (left - right).mean(axis=1)


def _extreme(statistics: np.ndarray, observed: float) -> int:
    return int((np.abs(statistics) >= abs(observed) * (1 - _TIE) - _TIE).sum())


def _exact(samples: TaskSamples, a: str, b: str) -> float:
    places = _differing(samples, a, b)
    count = 2 ** len(places)
    flips = ((np.arange(count)[:, None] >> np.arange(len(places))) & 1).astype(float)
    own, other = _matched(samples, a, b)
    moved = np.einsum("pc,sct->pst", flips, (other - own)[:, places], optimize=True)
    statistics = _statistic(samples, own, other, moved)
    return _extreme(statistics, statistics[0]) / count


def _sampled(
    samples: TaskSamples, pairs: Sequence[Pair], permutations: int, seed: int
) -> dict[Pair, float]:
    if not pairs:
        return {}
    stream = np.random.default_rng(seed)
    matched = {pair: _matched(samples, *pair) for pair in pairs}
    shapes = {pair: (len(own), own.shape[2]) for pair, (own, _) in matched.items()}
    gaps = {pair: (b - a).transpose(1, 0, 2) for pair, (a, b) in matched.items()}
    # One product for all pairs; most columns are numbers of documents, equal in both rows.
    matrix = np.concatenate([gap.reshape(samples.clusters, -1) for gap in gaps.values()], axis=1)
    used = np.flatnonzero(matrix.any(axis=0))
    observed = {
        pair: _statistic(samples, *matched[pair], np.zeros((1, *shapes[pair])))[0] for pair in pairs
    }
    more = dict.fromkeys(pairs, 0)
    size = max(1, _BLOCK // samples.clusters)
    for start in range(0, permutations, size):
        rows = min(size, permutations - start)
        flips = stream.integers(0, 2, size=(rows, samples.clusters), dtype=np.int8)
        moved = np.zeros((rows, matrix.shape[1]))
        moved[:, used] = flips.astype(float) @ matrix[:, used]
        column = 0
        for pair, (seeds, terms) in shapes.items():
            own = moved[:, column : column + seeds * terms].reshape(rows, seeds, terms)
            column += seeds * terms
            more[pair] += _extreme(_statistic(samples, *matched[pair], own), observed[pair])
    return {pair: (1 + more[pair]) / (1 + permutations) for pair in pairs}
