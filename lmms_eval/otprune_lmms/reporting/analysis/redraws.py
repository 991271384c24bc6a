"""Redraws: bootstrap draws of a benchmark's images, for this package's intervals."""

import zlib

import numpy as np

_SEED = 0


def redraws(task: str, group: np.ndarray, draws: int) -> np.ndarray:
    """Return how often each cluster is in each redraw, [draws clusters].

    Every stratum keeps its number of clusters: a score that is a sum over strata needs all of them.
    The draws are the same for every setting of a task, and independent between tasks.

    Args:
        task: its id.
        group: stratum of each cluster, [clusters].
        draws: how many.
    """
    random = np.random.default_rng([_SEED, zlib.crc32(task.encode())])
    counts = np.zeros((draws, len(group)), dtype=int)
    for stratum in np.unique(group):
        places = np.flatnonzero(group == stratum)
        shares = np.full(len(places), 1 / len(places))
        counts[:, places] = random.multinomial(len(places), shares, size=draws)
    return counts


def percentile_interval(drawn: np.ndarray) -> dict[str, float]:
    """Return ``low`` and ``high`` of 95 % of the redraws that are defined; NaN without any."""
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return {"low": float("nan"), "high": float("nan")}
    low, high = np.quantile(known, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}
