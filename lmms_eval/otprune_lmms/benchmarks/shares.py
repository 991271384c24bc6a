"""Each document's share of its benchmark's headline metric.

lmms-eval gives a number for the whole of a task; paired tests, intervals and a browser of samples
need one for each document. A record names the function that computes them from what the task's own
code returned; `metric_shares` and `caption_shares` serve most benchmarks.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ResultsByDocument = Mapping[int, Mapping[str, Any]]
"""What a task's ``process_results`` returned, by document."""

TaskAggregation = Callable[[list[Any]], float]
"""lmms-eval's aggregation of a metric: from the values of documents to the metric."""


@dataclass(frozen=True)
class Share:
    """A document's share of a headline metric.

    Attributes:
        value: in the metric's own unit. Where the headline is a plain mean, the mean of the shares
            of a benchmark's documents is the metric; elsewhere 1 or 0, right or wrong. None where
            the document does not count for the headline.
        detail: what an aggregation that is no plain mean needs beside the value.
    """

    value: float | None
    detail: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DocumentResults:
    """What the shares of a task's documents are computed from.

    Attributes:
        metric: lmms-eval's name of the headline metric.
        results: what the task's code returned, under its first filter.
        groups: the group of each document that is scored together with others
            (`DocumentGroups.of`).
        aggregate: the task's aggregation of the metric; None: values that are no numbers have no
            share.
        caption_scores: CIDEr of each image by its id; empty unless captions were scored.
    """

    metric: str
    results: ResultsByDocument
    groups: Mapping[int, Hashable] = field(default_factory=dict)
    aggregate: TaskAggregation | None = None
    caption_scores: Mapping[Any, float] = field(default_factory=dict)

    @property
    def values(self) -> dict[int, Any]:
        """The metric's value of each document; None where a document has none."""
        return {doc_id: result.get(self.metric) for doc_id, result in self.results.items()}


ShareRule = Callable[[DocumentResults], dict[int, Share]]
"""Returns the share of each document."""


def metric_shares(given: DocumentResults) -> dict[int, Share]:
    """Return the documents' values where these are numbers, else the task's aggregation of each.

    The aggregation gets the values of one document, or of one group of documents; the share of a
    group stands at its first document, its others have None.
    """
    values = given.values
    if all(value is None or isinstance(value, bool | int | float) for value in values.values()):
        return {k: Share(None if v is None else float(v)) for k, v in values.items()}
    found = dict.fromkeys(values, Share(None))
    if given.aggregate is None:
        return found
    for members in _together(values, given.groups):
        # Copies: a task's aggregation may change what it is given (MMBench's does).
        share = given.aggregate([_copy(values[doc_id]) for doc_id in members])
        found[members[0]] = Share(float(share))
    return found


def caption_shares(given: DocumentResults) -> dict[int, Share]:
    """Return CIDEr of each document's image; None where captions were not scored.

    The corpus score is the mean of the scores of its images.
    """
    return {
        doc_id: Share(given.caption_scores.get(int(value["image_id"])))
        for doc_id, value in given.values.items()
    }


def _together(values: Mapping[int, Any], groups: Mapping[int, Hashable]) -> Sequence[Sequence[int]]:
    """Return the documents that have a value, those of a group in one list."""
    members: dict[tuple[str, Hashable], list[int]] = {}
    for doc_id, value in values.items():
        if value is not None:
            name = ("group", groups[doc_id]) if doc_id in groups else ("document", doc_id)
            members.setdefault(name, []).append(doc_id)
    return list(members.values())


def _copy(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
