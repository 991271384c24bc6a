"""A benchmark's headline score under any weighting of its documents."""

import numpy as np

from otprune_lmms.benchmarks import HeadlineTerms, benchmark
from otprune_lmms.results.frames import Frame


def resampled(task: str, frame: Frame, counts: np.ndarray) -> np.ndarray:
    """Return the headline of one pruning config when documents count several times, or not at all.

    Args:
        task: the benchmark's name.
        frame: the config's samples of it, ``n`` of them.
        counts: ``[B n]``, how often each document counts; equal for documents that are scored as
            one.

    Returns:
        ``[B]``, in the unit that tables show; NaN where no document that counts is left.

    Raises:
        ValueError: counts of another width, or that differ among documents that are scored as one;
            samples that the benchmark's aggregation refuses.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[1] != len(frame):
        raise ValueError(f"counts must be [B {len(frame)}], got {list(counts.shape)}")
    own = terms_of(task, frame)
    if (counts[:, own.counted] != counts[:, own.owner[own.counted]]).any():
        raise ValueError(
            f"counts must be equal for the documents of {task} that are scored as one, and differ"
        )
    return own.score(counts @ own.terms)


def terms_of(task: str, frame: Frame) -> HeadlineTerms:
    """Return what each document of one pruning config adds to a benchmark's headline.

    Args:
        task: the benchmark's name; without a record of it the headline is the mean of ``value``.
        frame: the config's samples of it: ``value``, ``detail``.

    Raises:
        ValueError: samples that the benchmark's aggregation refuses.
    """
    record = benchmark(task)
    return record.aggregation.terms(frame, record.scale)
