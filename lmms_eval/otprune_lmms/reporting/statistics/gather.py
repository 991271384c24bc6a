"""The samples of one model and task, ready to be resampled: sums by cluster for every row."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from otprune_lmms.benchmarks import HeadlineTerms
from otprune_lmms.reporting.statistics.headlines import terms_of
from otprune_lmms.results.frames import Frame


@dataclass(frozen=True)
class TaskSamples:
    """Rows of one model and task that have the same documents.

    A cluster is what is drawn as one: the documents that show the same image, within a stratum.

    Attributes:
        task: its id.
        documents: ``[n]`` ids of the documents that count for the headline.
        cluster: ``[n]``, 0.. by cluster.
        stratum: ``[C]``, 0.. by stratum of each cluster (`HeadlineTerms`).
        terms: by row ``[s n t]``, what each document of each seed adds to the headline.
        values: by row ``[s n]``, the documents' own values.
        score: from sums of terms ``[... t]`` to the headline as tables show it.
    """

    task: str
    documents: np.ndarray
    cluster: np.ndarray
    stratum: np.ndarray
    terms: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]
    score: Callable[[np.ndarray], np.ndarray]

    @cached_property
    def sums(self) -> dict[str, np.ndarray]:
        """By row ``[s C t]``: sums of the terms over each cluster's documents."""
        order = np.argsort(self.cluster, kind="stable")
        starts = np.flatnonzero(np.diff(self.cluster[order], prepend=-1))
        return {
            row: np.add.reduceat(terms[:, order], starts, axis=1)
            for row, terms in self.terms.items()
        }

    @property
    def clusters(self) -> int:
        """How many clusters there are."""
        return len(self.stratum)

    @property
    def alone(self) -> bool:
        """Whether every document is a cluster of its own."""
        return self.clusters == len(self.documents)

    def point(self, row: str) -> float:
        """Return a row's score, the mean over its seeds."""
        return float(self.score(self.terms[row].sum(axis=1)).mean())


def gather(task: str, samples: Frame) -> list[TaskSamples]:
    """Return the samples of one model and task, one entry for each set of documents.

    Usually one: every row answers the same documents. A document counts for a row if all its seeds
    have a value; rows without such a document are left out.

    Args:
        task: its id.
        samples: of one model and this task.
    """
    frames = frames_by_row(samples)
    groups: dict[bytes, dict[str, Sequence[Frame]]] = defaultdict(dict)
    counted = {row: counted_documents(some) for row, some in frames.items()}
    for row, documents in counted.items():
        if documents.size:
            groups[documents.tobytes()][row] = frames[row]
    return [arrange(task, rows, np.frombuffer(key, dtype=np.int64)) for key, rows in groups.items()]


def frames_by_row(samples: Frame) -> dict[str, list[Frame]]:
    """Return each row's samples, one frame for each of its seeds, indexed by document."""
    found: dict[str, list[Frame]] = defaultdict(list)
    for (row, _), frame in samples.groupby(["row", "setting"], sort=False, observed=True):
        found[str(row)].append(frame.set_index("doc_id"))
    return found


def counted_documents(frames: Sequence[Frame]) -> np.ndarray:
    """Return the ids of the documents for which all frames have a value, ascending."""
    found = [frame.index[frame["value"].notna()].to_numpy(np.int64) for frame in frames]
    common = found[0]
    for other in found[1:]:
        common = np.intersect1d(common, other)
    return np.unique(common)


def arrange(task: str, frames: Mapping[str, Sequence[Frame]], documents: np.ndarray) -> TaskSamples:
    """Return the samples of some rows on given documents.

    Args:
        task: its id.
        frames: by row, one for each of its seeds.
        documents: ids, for which all frames have a value.
    """
    chosen = {row: [frame.loc[documents] for frame in some] for row, some in frames.items()}
    found = {row: [terms_of(task, frame) for frame in some] for row, some in chosen.items()}
    first = next(iter(found))
    cluster, stratum = _clusters(chosen[first][0], found[first][0])
    return TaskSamples(
        task=task,
        documents=documents,
        cluster=cluster,
        stratum=stratum,
        terms={row: np.stack([one.terms for one in some]) for row, some in found.items()},
        values={
            row: np.stack([frame["value"].to_numpy(float) for frame in some])
            for row, some in chosen.items()
        },
        score=found[first][0].score,
    )


def _clusters(frame: Frame, own: HeadlineTerms) -> tuple[np.ndarray, np.ndarray]:
    """Return each document's cluster ``[n]`` and each cluster's stratum ``[C]``."""
    names = [
        name or f"document {document}"
        for name, document in zip(frame["cluster"], frame.index, strict=True)
    ]
    images = pd.factorize(np.array(names, dtype=object)[own.owner])[0]
    keys = pd.MultiIndex.from_arrays([own.stratum, images])
    cluster, distinct = pd.factorize(keys)
    return cluster, np.array([stratum for stratum, _ in distinct], dtype=int)
