"""Whether a model's probabilities of the options are those with which it is right.

Confidence is the largest of the probabilities. The calibration error is the distance of confidence
from the share of right answers, mean over bins of confidence weighted by their documents (Guo et
al., arXiv 1706.04599, section 2). Noise within bins only adds to it: in a small sample even a
perfectly calibrated model has a large one. How large is drawn too, with the right answer of each
document as likely as its confidence says, as Broecker and Smith's consistency bars are. The Brier
score and the difference of mean confidence and accuracy have no such bias.
"""

from collections.abc import Sequence

import numpy as np

from otprune_lmms.reporting.statistics.bootstrap import Redraws
from otprune_lmms.results.frames import Frame

BINS = 15
"""Bins of confidence, equally wide; one on a border is in the bin below it."""

_BLOCK = 2_000_000
"""Numbers held at once: 16 MB as float64."""

Rows = dict[str, np.ndarray]
"""By row ``[1 + B]``: what was observed, then by draw."""


def confidence_of(probabilities: Sequence[float], right: int) -> tuple[float, float]:
    """Return the largest probability, and whether it is that of the right option.

    Where several options are equally likely, one of them is guessed: the second number is its
    probability of being right.
    """
    found = np.asarray(probabilities, dtype=float)
    best = found == found.max()
    return float(found.max()), float(best[right] / best.sum())


def brier_score(probabilities: Sequence[float], right: int) -> float:
    """Return the squared distance to certainty of the right option, summed over options: 0 to 2."""
    wanted = np.zeros(len(probabilities))
    wanted[right] = 1.0
    return float(((np.asarray(probabilities, dtype=float) - wanted) ** 2).sum())


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, counts: np.ndarray | None = None, bins: int = BINS
) -> np.ndarray:
    """Return the expected calibration error, in [0, 1].

    Args:
        confidence: of each document, ``[n]`` in [0, 1].
        right: whether it was right, ``[n]``; or, without ``counts``, ``[b n]``.
        counts: how often each document counts, ``[b n]``; None for once.
        bins: how many.

    Returns:
        ``[b]``, or one number without ``b``; NaN where no document counts.
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    inside = np.equal.outer(place, np.arange(bins)).astype(float)
    gaps = right - confidence
    if counts is None:
        sums, number = gaps @ inside, np.asarray(float(len(confidence)))
    else:
        sums, number = counts @ (gaps[:, None] * inside), counts.sum(axis=-1)
    return np.abs(sums).sum(axis=-1) / np.where(number > 0, number, np.nan)


def calibration_errors(
    samples: Frame, redraws: Redraws, seed: np.random.SeedSequence
) -> dict[str, Rows]:
    """Return the calibration error of each row in percent, and what chance alone makes of it.

    Both are means over the seeds of a row. A redrawn sample has more noise than the sample itself,
    so draws are moved to have the observed error as their mean: their interval says how it varies
    between samples of this size.

    Args:
        samples: of one model and task.
        redraws: of its documents.
        seed: of the draws by chance, the same for all rows.

    Returns:
        "ece", and "ece_by_chance" with its mean first; nothing without probabilities. A row that
        lacks documents is left out.
    """
    known = samples[samples["right_option"].notna()]
    every = known["doc_id"].nunique()
    found: dict[str, Rows] = {"ece": {}, "ece_by_chance": {}}
    place = {doc_id: number for number, doc_id in enumerate(redraws.documents.tolist())}
    for row, of_row in known.groupby("row", sort=False):
        parts = [part for _, part in of_row.groupby("setting", sort=False)]
        if any(len(part) < every for part in parts):
            continue
        own, chance = [], []
        for part in parts:
            lines = zip(part["probabilities"], part["right_option"], strict=True)
            pairs = np.array([confidence_of(given, int(right)) for given, right in lines])
            confidence, right = pairs.T
            counts = redraws.counts[:, [place[one] for one in part["doc_id"]]]
            own.append(_centred(calibration_error(confidence, right, counts)))
            chance.append(_by_chance(confidence, len(counts) - 1, seed))
        found["ece"][str(row)] = 100 * np.mean(own, axis=0)
        found["ece_by_chance"][str(row)] = 100 * np.mean(chance, axis=0)
    return {name: rows for name, rows in found.items() if rows}


def _centred(errors: np.ndarray) -> np.ndarray:
    """Return errors [1 + B] whose draws have the first as their mean; none is below 0."""
    drawn = errors[1:]
    if np.isnan(drawn).all():
        return errors
    return np.concatenate([errors[:1], np.maximum(drawn + errors[0] - np.nanmean(drawn), 0.0)])


def _by_chance(confidence: np.ndarray, draws: int, seed: np.random.SeedSequence) -> np.ndarray:
    """Return the errors of a perfectly calibrated model: their mean, then each draw, [1 + B]."""
    stream, size = np.random.default_rng(seed), max(1, _BLOCK // len(confidence))
    parts = []
    for start in range(0, draws, size):
        uniform = stream.random((min(size, draws - start), len(confidence)))
        parts.append(calibration_error(confidence, (uniform < confidence).astype(float)))
    drawn = np.concatenate(parts)
    return np.concatenate([[drawn.mean()], drawn])
