"""A benchmark's headline score from the shares of its documents, under any weights of documents.

Every headline is a function of sums over documents, so that a resampled score needs only the
weighted sums. An `Aggregation` defines what each document adds to these sums, its terms, and how
the score follows from the sums. Most benchmarks use `MEAN`: the sum of shares, and their number.
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
        counted: ``[n]``, whether the document counts for the headline.
        stratum: ``[n]``, number of the document's stratum, from 0. Resampling keeps the number of
            documents of each stratum. A score that is made of parts (a sum over categories, the
            worst of several kinds) has a stratum for each; any other score has one.
        owner: ``[n]``, index of the document that it is resampled with: its own, or that of the
            first document of its group.
        score: returns the headline in the unit of tables from sums of terms ``[... t]``; NaN where
            no document of the sums counts.
    """

    terms: np.ndarray
    counted: np.ndarray
    stratum: np.ndarray
    owner: np.ndarray
    score: Score

    @classmethod
    def alone(cls, terms: np.ndarray, counted: np.ndarray, score: Score) -> "HeadlineTerms":
        """Return the terms of documents that are resampled one by one, in one stratum."""
        n = len(terms)
        return cls(terms, counted, np.zeros(n, int), np.arange(n), score)


@dataclass(frozen=True)
class Aggregation:
    """How a benchmark's headline follows from the shares of its documents.

    Attributes:
        terms: returns the terms of n samples of one pruning config, from a frame with columns
            ``value`` and ``detail`` (a `Share`'s, the latter as JSON) and the record's ``scale``.
        plain_mean: whether the headline is the mean of the shares of documents that count, which
            McNemar's test requires.
        called: name of the headline in a sentence ("F1"), where it is no plain mean.
        strata: name of a stratum ("category"); "" where there is only one.
        best_share: share of a document that is entirely right; None for the headline's best value
            divided by its scale.
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


def details(samples: Frame, *needed: str) -> list[dict[str, Any]]:
    """Return the ``detail`` of each sample.

    Args:
        samples: with ``detail`` as JSON objects.
        needed: keys that each must have.

    Raises:
        ValueError: a detail lacks one of them, as those of another version do.
    """
    found = [json.loads(text) for text in samples["detail"]]
    for name in needed:
        lacking = sum(name not in one for one in found)
        if lacking:
            raise ValueError(
                f"the detail of {lacking} samples says no {name}, which their score is made of: "
                "run the experiment again"
            )
    return found


def divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return above / below, NaN where below is 0."""
    result = np.full(np.broadcast(above, below).shape, np.nan)
    return np.divide(above, below, out=result, where=np.asarray(below) != 0)
