"""How the shares of documents make a benchmark's headline score, under any weighting of documents.

Every headline is a function of sums over documents, so that a resampled score needs only the sums
of the weighted documents. An `Aggregation` says what each document adds to these sums and how the
score follows from them. `MEAN` is that of most benchmarks: it sums the shares and counts them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Frame = Any
"""A ``pd.DataFrame``; named here because pandas is not needed to make records."""

Score = Callable[[np.ndarray], np.ndarray]
"""From sums of terms ``[... t]`` to scores ``[...]``."""


@dataclass(frozen=True)
class HeadlineTerms:
    """What each of n documents adds to the headline score.

    Attributes:
        terms: ``[n t]``, the documents' terms; zeros for documents that do not count.
        counted: ``[n]``, whether the document counts.
        stratum: ``[n]``, 0.. by stratum. Resampling keeps how many documents a stratum has; all
            are in one where the score does not add up strata.
        owner: ``[n]``, the place of the document that it is drawn with: its own, or that of the
            first document of its group.
        score: from sums of terms ``[... t]`` to the headline in the unit that tables show; NaN
            where the sums are of no document that counts.
    """

    terms: np.ndarray
    counted: np.ndarray
    stratum: np.ndarray
    owner: np.ndarray
    score: Score

    @classmethod
    def alone(cls, terms: np.ndarray, counted: np.ndarray, score: Score) -> "HeadlineTerms":
        """Return the terms of documents that are drawn each for itself, in one stratum."""
        n = len(terms)
        return cls(terms, counted, np.zeros(n, int), np.arange(n), score)


@dataclass(frozen=True)
class Aggregation:
    """How a benchmark's headline follows from the shares of its documents.

    Attributes:
        terms: from a frame of n samples of one pruning config (columns ``value`` and ``detail``,
            the share's, the latter as JSON) and the record's scale to their terms.
        plain_mean: whether the headline is the mean of the shares of documents that count;
            McNemar's test is for these only.
        called: the headline in the words of a sentence ("F1"), where it is no plain mean.
        strata: what a stratum is ("category"); "" where there is one.
        best_share: share of a document that is all right; None: the headline's best value in the
            unit in which it is stored.
    """

    terms: Callable[[Frame, float], HeadlineTerms]
    plain_mean: bool = False
    called: str = ""
    strata: str = ""
    best_share: float | None = None


def mean_terms(samples: Frame, scale: float) -> HeadlineTerms:
    """Return the terms of a mean: each document's share, and 1 for each that has one."""
    values = samples["value"].to_numpy(float)
    counted = ~np.isnan(values)
    terms = np.stack([np.where(counted, values, 0.0), counted.astype(float)], axis=-1)

    def score(sums: np.ndarray) -> np.ndarray:
        return scale * divided(sums[..., 0], sums[..., 1])

    return HeadlineTerms.alone(terms, counted, score)


MEAN = Aggregation(mean_terms, plain_mean=True)
"""The mean of the shares of all documents that count."""


def details(samples: Frame) -> list[dict[str, Any]]:
    """Return the ``detail`` of each sample."""
    return [json.loads(text) for text in samples["detail"]]


def divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return above / below, NaN where below is 0."""
    result = np.full(np.broadcast(above, below).shape, np.nan)
    return np.divide(above, below, out=result, where=np.asarray(below) != 0)
