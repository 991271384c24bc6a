"""The record of a benchmark: everything that the harness knows of it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from otprune_lmms.benchmarks.aggregation import MEAN, Aggregation
from otprune_lmms.benchmarks.groups import DocumentGroups
from otprune_lmms.benchmarks.options import Options
from otprune_lmms.benchmarks.shares import Noted, ShareRule, TaskAggregation, metric_shares


@dataclass(frozen=True, slots=True)
class VideoRule:
    """Which documents are videos; the images of a video are its frames.

    Attributes:
        column: column of the data set; it is read without any image.
        value: its value for a video.
    """

    column: str
    value: str

    def videos(self, columns: Mapping[str, Any]) -> list[bool] | None:
        """Return for each document whether it is a video; None if the column is missing.

        Args:
            columns: a split of a data set.
        """
        if self.column not in getattr(columns, "column_names", ()):
            return None
        return [value == self.value for value in columns[self.column]]


@dataclass(frozen=True, slots=True)
class PrintedName:
    """The name under which papers print a benchmark's headline, as in ``published/scores.csv``.

    Attributes:
        benchmark: value of the column ``benchmark``.
        metric: value of the column ``metric``.
        sources: the name means this headline only where ``source`` begins with one of these; empty
            for every source.
    """

    benchmark: str
    metric: str
    sources: tuple[str, ...] = ()

    def covers(self, benchmark: str, metric: str, source: str) -> bool:
        """Return whether a printed number is of this name."""
        return (benchmark, metric) == (self.benchmark, self.metric) and (
            not self.sources or source.startswith(self.sources)
        )


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: where its documents come from, and how its score is computed and shown.

    Attributes:
        name: name in experiments, tables and results folders.
        task: id of its task in lmms-eval.
        metric: lmms-eval's name of the headline metric, the one that tables show.
        column: heading of its column.
        title: its name in a sentence; "" for the column's heading.
        folder: folder of the task files: a name in ``lmms_eval/tasks``, or an absolute path.
            Indexing one folder takes 0.1 s; without one all of lmms-eval is indexed, 3 to 8 s.
        scale: factor from the stored score to the shown one.
        best: largest possible score as shown; None where there is none.
        digits: decimals shown.
        metric_words: name of the metric for readers, with its unit.
        kind: "question", or "caption", which has no single right answer.
        shares: computes each document's share of the score.
        notes: given the task's aggregation, a context in which the values that it finds for groups
            of documents are noted; None where it is called again for each group.
        reference: returns a document's reference, and None for one that no answer can equal; None
            for the task's own target. Documents without a reference are left out.
        options: returns the options of a document whose question asks to choose one of them, and
            None for another document; None where no document has any.
        groups: documents that are scored as one; None where each is scored alone.
        aggregation: how the score follows from the shares.
        counted: name of the documents that count for the headline; "" for all.
        ratio_divisor: divisor of the score before it enters a ratio of means, so that scores of
            larger units do not outweigh the others.
        tolerance: largest accepted distance between an unpruned model's score and its reference, as
            shown. Versions, prompts and half precision move scores by about a point.
        video: which documents are videos; None where none are.
        related: ids of lmms-eval tasks (patterns with * and ?) without a record of their own, whose
            documents are of the same kind: they share folder, groups and video rule.
        printed: names under which papers print the headline.
    """

    name: str
    task: str
    metric: str
    column: str
    title: str = ""
    folder: str | Path | None = None
    scale: float = 100.0
    best: float | None = 100.0
    digits: int = 1
    metric_words: str = "accuracy, %"
    kind: Literal["question", "caption"] = "question"
    shares: ShareRule = metric_shares
    notes: Callable[[TaskAggregation], AbstractContextManager[Noted]] | None = None
    reference: Callable[[Mapping[str, Any]], Any] | None = None
    options: Callable[[Mapping[str, Any]], Options | None] | None = None
    groups: DocumentGroups | None = None
    aggregation: Aggregation = MEAN
    counted: str = ""
    ratio_divisor: float = 1.0
    tolerance: float = 1.5
    video: VideoRule | None = None
    related: tuple[str, ...] = ()
    printed: tuple[PrintedName, ...] = ()

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: an empty text that must say something, or a scale or divisor that is not
                positive.
        """
        for name in ("name", "task", "metric", "column"):
            if not getattr(self, name):
                raise ValueError(f"{name} of a benchmark must not be empty, got ''")
        for name in ("scale", "ratio_divisor"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"{name} of {self.name} must be positive, got {value}")
        if not self.title:
            object.__setattr__(self, "title", self.column)

    @property
    def best_share(self) -> float | None:
        """Share of a document that is entirely right; None where there is no such value."""
        if self.aggregation.best_share is not None:
            return self.aggregation.best_share
        return None if self.best is None else self.best / self.scale

    def limit(self, limit: int | None) -> int | None:
        """Return a limit of documents, raised so that no group of documents is cut."""
        return limit if self.groups is None else self.groups.limit(limit)

    def is_related(self, task: str) -> bool:
        """Return whether a task without a record has documents of this benchmark's kind."""
        return task == self.task or any(fnmatchcase(task, one) for one in self.related)
