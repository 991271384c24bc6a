"""Cluster bootstrap of headline scores: the uncertainty from the choice of documents.

Clusters (images) are drawn with replacement, as many as there are, with all their documents; within
each stratum where a headline adds up strata, so that none is ever missing. All rows of a model and
task see the same draws, so differences between them are paired. A row with several seeds is their
mean within each draw: the interval is about documents, not about further seeds.

Intervals are percentile intervals, not BCa. A score at its bound (all right) has no bias correction
(its z0 is infinite); scores of few documents lie on a lattice, where z0 depends on ties; and BCa's
acceleration needs a jackknife through every task of a relative average. What BCa would win, second
order accuracy for skewed statistics, is small beside that: with some hundred documents a mean is
close to normal.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from otprune_lmms.reporting.statistics.averages import MEAN_OF_RATIOS, RATIO_OF_MEANS, task_weights
from otprune_lmms.reporting.statistics.gather import TaskSamples

DRAWS = 2000
LEVEL = 0.95

_BLOCK = 2_000_000
"""Counts held at once: 16 MB as float64."""

_MOST_EMPTY = 0.05
"""Share of draws without a value above which there is no interval."""


def cluster_counts(
    stratum: np.ndarray, draws: int, seed: int | np.random.SeedSequence
) -> Iterator[np.ndarray]:
    """Yield how often each cluster is drawn, in blocks of draws.

    Args:
        stratum: ``[C]``, 0.. by stratum; each stratum keeps its number of clusters.
        draws: how many in all.
        seed: of the draws, which do not depend on the blocks' size.

    Yields:
        ``[b C]`` float64.

    Raises:
        ValueError: draws below 1, or no clusters.
    """
    if draws < 1 or not len(stratum):
        raise ValueError(f"draws and clusters must be at least 1, got {draws}, {len(stratum)}")
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    members = [np.flatnonzero(stratum == one) for one in np.unique(stratum)]
    streams = [np.random.default_rng(child) for child in root.spawn(len(members))]
    size = max(1, _BLOCK // len(stratum))
    for start in range(0, draws, size):
        rows = min(size, draws - start)
        counts = np.zeros((rows, len(stratum)))
        for places, stream in zip(members, streams, strict=True):
            counts[:, places] = _drawn(stream, rows, len(places))
        yield counts


def _drawn(stream: np.random.Generator, rows: int, n: int) -> np.ndarray:
    picks = stream.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n)


class Redraws(NamedTuple):
    """How often each document of a task counts.

    Attributes:
        documents: ``[n]`` their ids.
        counts: ``[1 + B n]``, once in the first line, then as often as its image is drawn.
        clusters: number of images.
    """

    documents: np.ndarray
    counts: np.ndarray
    clusters: int


def redraws_of(
    documents: Sequence[int], clusters: Sequence[str], draws: int, seed: np.random.SeedSequence
) -> Redraws:
    """Return a task's documents as they are and redrawn by images.

    Args:
        documents: ids.
        clusters: the image of each.
        draws: how many.
        seed: of them.
    """
    codes, names = pd.factorize(np.asarray(clusters, dtype=object))
    drawn = cluster_counts(np.zeros(len(names), dtype=int), draws, seed)
    counts = np.vstack([np.ones((1, len(names))), *drawn])
    return Redraws(np.asarray(documents), counts[:, codes], len(names))


def task_seed(task: str, seed: int) -> np.random.SeedSequence:
    """Return the seed of a task's draws: tasks are drawn independently, whichever others run."""
    return np.random.SeedSequence([seed, zlib.crc32(task.encode())])


def draw_scores(samples: TaskSamples, draws: int = DRAWS, seed: int = 0) -> dict[str, np.ndarray]:
    """Return every row's score in every draw, seeds averaged.

    Args:
        samples: of one model and task.
        draws: how many.
        seed: of all draws; the task's own follow from it.

    Returns:
        By row ``[B]``, in the unit that tables show. Cost: a ``[B C] x [C R]`` product.
    """
    sums = samples.sums
    shapes = {row: some.shape for row, some in sums.items()}
    columns = [some.transpose(1, 0, 2).reshape(samples.clusters, -1) for some in sums.values()]
    matrix = np.concatenate(columns, axis=1)
    blocks: dict[str, list[np.ndarray]] = {row: [] for row in sums}
    for counts in cluster_counts(samples.stratum, draws, task_seed(samples.task, seed)):
        drawn, start = counts @ matrix, 0
        for row, (seeds, _, terms) in shapes.items():
            own = drawn[:, start : start + seeds * terms].reshape(-1, seeds, terms)
            blocks[row].append(samples.score(own).mean(axis=1))
            start += seeds * terms
    return {row: np.concatenate(some) for row, some in blocks.items()}


def relative_draws(
    own: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray], rule: str
) -> np.ndarray:
    """Return the relative average in every draw.

    Args:
        own: a row's draws ``[B]`` by task.
        base: those of the unpruned model, for the same tasks at least.
        rule: `MEAN_OF_RATIOS` or `RATIO_OF_MEANS`.

    Returns:
        ``[B]`` percent; NaN in draws in which an unpruned score, or mean, is 0.

    Raises:
        ValueError: no task, or another rule.
    """
    if rule not in (MEAN_OF_RATIOS, RATIO_OF_MEANS):
        raise ValueError(f"rule must be {MEAN_OF_RATIOS} or {RATIO_OF_MEANS}, got {rule!r}")
    if not own:
        raise ValueError("own must have at least one task")
    above = np.stack(list(own.values()))
    below = np.stack([base[task] for task in own])
    if rule == RATIO_OF_MEANS:
        weights = task_weights(list(own))
        return 100 * _over(weights @ above, weights @ below)
    return 100 * _over(above, below).mean(axis=0)


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


def interval(draws: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval of draws.

    Args:
        draws: ``[B]``; NaN ones are left out.
        level: share of the draws inside, in (0, 1).

    Returns:
        Both ends; NaN if more than one draw in twenty has no value.

    Raises:
        ValueError: a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    found = draws[~np.isnan(draws)]
    if len(found) < (1 - _MOST_EMPTY) * len(draws) or not len(found):
        return float("nan"), float("nan")
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_p(draws: np.ndarray) -> float:
    """Return the two-sided p-value of "the difference is 0" from draws of the difference.

    Twice the smaller share of draws on either side of 0, those at 0 on both: the level at which the
    percentile interval just reaches 0. Never below 2 / (B + 1).

    Args:
        draws: ``[B]``; NaN ones are left out.

    Returns:
        NaN if more than one draw in twenty has no value.
    """
    found = draws[~np.isnan(draws)]
    if len(found) < (1 - _MOST_EMPTY) * len(draws) or not len(found):
        return float("nan")
    fewer = min(int((found <= 0).sum()), int((found >= 0).sum()))
    return min(1.0, 2 * (1 + fewer) / (len(found) + 1))
