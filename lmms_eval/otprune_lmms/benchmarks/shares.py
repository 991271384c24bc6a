"""Each document's share of its benchmark's headline metric.

lmms-eval gives one number for a task; paired tests, intervals and a browser of samples need one for
each document. A benchmark's record names the function that computes them from what the task's own
code returned; most use `metric_shares` or `caption_shares`.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Noted = Mapping[Hashable, float]
"""A metric's value for single groups of documents, by the group's name."""

ResultsByDocument = Mapping[int, Mapping[str, Any]]
"""Return value of a task's ``process_results`` for each document."""

TaskAggregation = Callable[[list[Any]], float]
"""lmms-eval's aggregation of a metric: returns the metric from the documents' values."""


@dataclass(frozen=True)
class Share:
    """A document's share of a headline metric.

    Attributes:
        value: in the metric's own unit. If the headline is a plain mean, the mean of the shares is
            the metric; otherwise 1 for right and 0 for wrong. None if the document does not count
            for the headline.
        detail: further values that an aggregation other than a plain mean needs.
    """

    value: float | None
    detail: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DocumentResults:
    """Input of a `ShareRule`: a task's results by document.

    Attributes:
        metric: lmms-eval's name of the headline metric.
        results: what the task's code returned, under its first filter.
        groups: the group of each document that is scored together with others
            (`DocumentGroups.of`).
        aggregate: the task's aggregation of the metric; without it values other than numbers have
            no share.
        noted: what the aggregation of all documents found about groups, so that it need not be
            called for each of them; empty where the benchmark's record notes nothing.
        caption_scores: CIDEr of each image by the image's id; empty unless captions were scored.
    """

    metric: str
    results: ResultsByDocument
    groups: Mapping[int, Hashable] = field(default_factory=dict)
    aggregate: TaskAggregation | None = None
    noted: Noted = field(default_factory=dict)
    caption_scores: Mapping[Any, float] = field(default_factory=dict)

    @property
    def values(self) -> dict[int, Any]:
        """The metric's value of each document; None where a document has none."""
        return {doc_id: result.get(self.metric) for doc_id, result in self.results.items()}


ShareRule = Callable[[DocumentResults], dict[int, Share]]
"""Returns the share of each document."""


def metric_shares(given: DocumentResults) -> dict[int, Share]:
    """Return the documents' values if these are numbers, otherwise the task's aggregation of each.

    The aggregation is called with the values of one document or of one group, unless the value of
    the group was noted when all documents were aggregated. The share of a group
    belongs to its first document; its other documents have None.
    """
    values = given.values
    if all(value is None or isinstance(value, bool | int | float) for value in values.values()):
        return {k: Share(None if v is None else float(v)) for k, v in values.items()}
    found = dict.fromkeys(values, Share(None))
    if given.aggregate is None:
        return found
    for members in _together(values, given.groups):
        noted = given.noted.get(given.groups.get(members[0]))
        if noted is not None:
            found[members[0]] = Share(noted)
            continue
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
