"""A task's headline score under any weighting of its documents.

Every headline is a function of sums over documents, so a resampled score needs the sums of the
weighted documents only: means need their total and number, POPE's F1 the counts of true and false
positives and of false negatives, MME's perception score the points and pairs of each category.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from otprune_lmms.benchmarks import headline
from otprune_lmms.results.frames import Frame


@dataclass(frozen=True)
class Parts:
    """What the documents of one cell add to a task's headline.

    Attributes:
        terms: ``[n t]``, each document's terms; zeros for documents that do not count.
        counted: ``[n]``, whether the document counts.
        group: ``[n]``, 0.. by stratum: MME's category, 0 elsewhere.
        owner: ``[n]``, the document that it is drawn with: itself, or the first question about its
            image for MME's second.
        score: from sums of terms ``[... t]`` to the headline in the unit that tables show; NaN
            where no document is left.
    """

    terms: np.ndarray
    counted: np.ndarray
    group: np.ndarray
    owner: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]


def resampled(task: str, frame: Frame, counts: np.ndarray) -> np.ndarray:
    """Return the headline of one cell when each document counts several times, or not at all.

    Args:
        task: its id.
        frame: the cell's samples of the task, ``n`` of them.
        counts: ``[B n]``, how often each document counts. Both questions of an MME image must
            count equally often.

    Returns:
        ``[B]``, in the unit that tables show; NaN where no document is left.

    Raises:
        ValueError: counts of another width; an MME image without two questions, or with counts
            that differ.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[1] != len(frame):
        raise ValueError(f"counts must be [B {len(frame)}], got {list(counts.shape)}")
    if task == "mme":
        _check_pairs_together(frame, counts)
    parts = parts_of(task, frame)
    return parts.score(counts @ parts.terms)


def parts_of(task: str, frame: Frame) -> Parts:
    """Return what each document of one cell adds to a task's headline.

    Args:
        task: its id; a task without a headline of its own has the mean of ``value``.
        frame: the cell's samples of the task: ``value``, ``detail``.

    Raises:
        ValueError: an MME image without two questions.
    """
    if task == "pope":
        return _f1(frame)
    if task == "mme":
        return _mme(frame)
    return _mean(task, frame)


def plain_mean(task: str) -> bool:
    """Return whether a task's headline is the mean of ``value`` over documents."""
    return task not in ("pope", "mme")


def unit(task: str) -> float:
    """Return what a mean of ``value`` is multiplied with to stand in a table."""
    return headline(task, ["value"]).scale


def _mean(task: str, frame: Frame) -> Parts:
    values = frame["value"].to_numpy(float)
    counted = ~np.isnan(values)
    scale = unit(task)

    def score(sums: np.ndarray) -> np.ndarray:
        return scale * _divided(sums[..., 0], sums[..., 1])

    terms = np.stack([np.where(counted, values, 0.0), counted.astype(float)], axis=-1)
    return Parts(terms, counted, *_single(len(frame)), score)


def _f1(frame: Frame) -> Parts:
    """F1 of "yes"; an answer that is neither word is no error, as in lmms-eval."""
    counted = frame["value"].notna().to_numpy()
    detail = [json.loads(text) for text in frame["detail"]]
    said = np.array([one.get("prediction") for one in detail], dtype=object)
    truth = np.array([one.get("truth") for one in detail], dtype=object)
    kinds = [(said == "yes", truth == "yes"), (said == "yes", truth == "no")]
    kinds += [(said == "no", truth == "yes")]
    terms = np.stack([a & b & counted for a, b in kinds] + [counted], axis=-1).astype(float)

    def score(sums: np.ndarray) -> np.ndarray:
        right, false_yes, false_no, documents = np.moveaxis(sums, -1, 0)
        f1 = _divided(2 * right, 2 * right + false_yes + false_no)
        # Without a true positive lmms-eval says 0.
        f1 = np.where(right > 0, f1, 0.0)
        return unit("pope") * np.where(documents > 0, f1, np.nan)

    return Parts(terms, counted, *_single(len(frame)), score)


def _mme(frame: Frame) -> Parts:
    """Sum over categories of the mean over images of accuracy + accuracy of both questions.

    Cognition's documents have no value, so they do not count.
    """
    values = frame["value"].to_numpy(float)
    counted = ~np.isnan(values)
    first, second, category = _pairs(frame)
    owner, group = np.arange(len(frame)), np.zeros(len(frame), int)
    owner[second] = first
    group[first] = group[second] = category
    right = values[first] + values[second]
    terms = np.zeros((len(frame), 2 * (1 + category.max(initial=0))))
    terms[first, 2 * category] = 50.0 * right + 100.0 * (right == 2)
    terms[first, 2 * category + 1] = 1.0

    def score(sums: np.ndarray) -> np.ndarray:
        points, images = sums[..., 0::2], sums[..., 1::2]
        total = np.where(images > 0, _divided(points, images), 0.0).sum(axis=-1)
        return np.where(images.sum(axis=-1) > 0, total, np.nan)

    return Parts(terms, counted, group, owner, score)


def _pairs(frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places of both questions of every image that counts, and its category's."""
    places = np.flatnonzero(frame["value"].notna().to_numpy())
    detail = [json.loads(text) for text in frame["detail"].iloc[places]]
    keys = [f"{one['category']} {one['question_id']}" for one in detail]
    _, image, many = np.unique(np.array(keys, str), return_inverse=True, return_counts=True)
    wrong = np.flatnonzero(many[image] != 2)
    if wrong.size:
        key = keys[int(wrong[0])]
        raise ValueError(f"mme needs two values for every image, {key} has {keys.count(key)}")
    names = np.array([one["category"] for one in detail], str)
    category = np.unique(names, return_inverse=True)[1]
    order = np.argsort(image, kind="stable")
    first, second = order[0::2], order[1::2]
    return places[first], places[second], category[first]


def _check_pairs_together(frame: Frame, counts: np.ndarray) -> None:
    first, second, _ = _pairs(frame)
    if (counts[:, first] != counts[:, second]).any():
        raise ValueError("counts must be equal for the two questions of an mme image")


def _single(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return group and owner of documents that stand for themselves, in one stratum."""
    return np.zeros(n, int), np.arange(n)


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return above / below, NaN where below is 0."""
    result = np.full(np.broadcast(above, below).shape, np.nan)
    return np.divide(above, below, out=result, where=np.asarray(below) != 0)
