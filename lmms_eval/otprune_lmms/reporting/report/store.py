"""Samples read as the page needs them: numbers of all, texts of those that are shown."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from otprune_lmms.reporting.figures.data import Frame, Shown
from otprune_lmms.results.samples import SAMPLES, read_samples

_NUMBERS = ("model", "setting", "method", "task", "doc_id", "cluster", "value")

_FEWEST = 3
"""Documents from which one target for all of them says that it is none."""


class Store:
    """The samples of a results folder.

    Args:
        folder: with ``samples.parquet``.

    Raises:
        ValueError: it has none, or of another format.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SAMPLES
        self.numbers: Frame = read_samples(folder, _NUMBERS)

    @property
    def models(self) -> list[str]:
        """Models, in order of appearance."""
        return list(dict.fromkeys(self.numbers["model"]))

    @property
    def cells(self) -> list[str]:
        """Cells, in order of appearance."""
        return list(dict.fromkeys(self.numbers["setting"]))

    def of(self, places: Sequence[Shown]) -> dict[Shown, Frame]:
        """Return all samples of some documents."""
        wanted = pc.field("doc_id").isin(sorted({doc_id for _, doc_id in places}))
        wanted &= pc.field("task").isin(sorted({task for task, _ in places}))
        found = pq.read_table(self._path, filters=wanted).to_pandas()
        by_place = dict(tuple(found.groupby(["task", "doc_id"], sort=False)))
        return {place: by_place[place] for place in places}

    @cached_property
    def silent(self) -> set[str]:
        """Tasks whose documents all have one target, which then says nothing.

        lmms-eval leaves the name of a column there, where a task's metric reads the document.
        """
        one = (pc.field("setting") == self.cells[0]) & (pc.field("model") == self.models[0])
        found = pq.read_table(self._path, columns=["task", "target"], filters=one).to_pandas()
        counts = found.groupby("task")["target"].agg(["size", "nunique"])
        alike = counts[(counts["size"] >= _FEWEST) & (counts["nunique"] == 1)]
        return {str(task) for task in alike.index}
