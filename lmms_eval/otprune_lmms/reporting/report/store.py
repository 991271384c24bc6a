"""Reads samples for the page: numbers of all of them, texts of the shown ones."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pyarrow.compute as pc

from otprune_lmms.documents import DocumentKey
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.samples import read_samples

_NUMBERS = ("model", "setting", "method", "task", "doc_id", "cluster", "value")

_FEWEST = 3
"""Documents of a task from which one target for all of them counts as no target."""


class SampleStore:
    """The samples of a results folder.

    Args:
        folder: with ``samples.parquet``.

    Raises:
        ValueError: it has none, or of another format.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.numbers: Frame = read_samples(folder, _NUMBERS)

    @cached_property
    def models(self) -> list[str]:
        """Models, in order of appearance."""
        return [str(model) for model in self.numbers["model"].unique()]

    @cached_property
    def settings(self) -> list[str]:
        """Labels of the settings, in order of appearance."""
        return [str(setting) for setting in self.numbers["setting"].unique()]

    def of(self, documents: Sequence[DocumentKey]) -> dict[DocumentKey, Frame]:
        """Return all samples of some documents."""
        wanted = pc.field("doc_id").isin(sorted({doc_id for _, doc_id in documents}))
        wanted &= pc.field("task").isin(sorted({task for task, _ in documents}))
        found = read_samples(self._folder, filters=wanted)
        by_document = dict(tuple(found.groupby(["task", "doc_id"], sort=False)))
        return {document: by_document[document] for document in documents}

    @cached_property
    def silent(self) -> set[str]:
        """Tasks whose documents all have the same target, which is then no answer.

        If a task's metric reads the document itself, lmms-eval's target is the name of a column.
        """
        one = (pc.field("setting") == self.settings[0]) & (pc.field("model") == self.models[0])
        found: Frame = read_samples(self._folder, ["task", "target"], one)
        counts = found.groupby("task")["target"].agg(["size", "nunique"])
        alike = counts[(counts["size"] >= _FEWEST) & (counts["nunique"] == 1)]
        return {str(task) for task in alike.index}
