"""Each document's share of its task's headline metric.

lmms-eval gives a number for the whole of a task; paired tests, intervals and a browser of samples
need one for each document. It is taken from the task's own code: the document's value where that
is a number, the aggregation applied to the document alone where it is not, and of CIDEr the score
of the image that the corpus score is the mean of.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

CIRCULAR = 1_000_000
"""MMBench asks a question again with its options turned, at index + a multiple of this."""


@dataclass(frozen=True)
class Share:
    """A document's share of a headline metric.

    Attributes:
        value: in the metric's own unit, so that the mean over a task's documents is the metric.
            For POPE (F1) and MME (a sum over categories) 1 or 0, right or wrong. None where the
            document does not count for the headline.
        detail: what a metric that is no mean needs beside it: POPE's ``prediction`` and ``truth``,
            MME's ``category`` and ``question_id``.
    """

    value: float | None
    detail: Mapping[str, str] = field(default_factory=dict)


Results = Mapping[int, Mapping[str, Any]]
"""What ``process_results`` said, by document."""


def shares(
    metric: str,
    results: Results,
    aggregate: Callable[[list[Any]], float] | None,
    captions: Mapping[Any, float] | None = None,
) -> dict[int, Share]:
    """Return each document's share of a metric.

    Args:
        metric: lmms-eval's name of it; a filter's name behind a comma is ignored.
        results: of one filter.
        aggregate: the task's aggregation; None where values that are no numbers have no share.
        captions: CIDEr by image id, for captions.
    """
    metric = metric.partition(",")[0]
    if metric.startswith("mme_"):
        return _mme(metric, results)
    if metric.startswith("pope_"):
        return {doc_id: _pope(result[metric]) for doc_id, result in results.items()}
    if metric.endswith("_CIDEr"):
        scores = captions or {}
        return {
            doc_id: Share(scores.get(int(result[metric]["image_id"])))
            for doc_id, result in results.items()
        }
    plain = {doc_id: result.get(metric) for doc_id, result in results.items()}
    if all(value is None or isinstance(value, (bool, int, float)) for value in plain.values()):
        return {k: Share(None if v is None else float(v)) for k, v in plain.items()}
    return _alone(plain, aggregate)


def _alone(
    plain: Mapping[int, Any], aggregate: Callable[[list[Any]], float] | None
) -> dict[int, Share]:
    """Return the aggregation of each group of documents that count as one, at its first."""
    found = dict.fromkeys(plain, Share(None))
    if aggregate is None:
        return found
    for group in _groups(plain):
        # A copy: MMBench's code changes what it is given.
        found[group[0]] = Share(float(aggregate([_copied(plain[doc_id]) for doc_id in group])))
    return found


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _groups(plain: Mapping[int, Any]) -> Iterable[list[int]]:
    groups: dict[Any, list[int]] = defaultdict(list)
    for doc_id, value in plain.items():
        if value is None:
            continue
        circular = isinstance(value, Mapping) and "index" in value
        name = ("question", int(value["index"]) % CIRCULAR) if circular else ("alone", doc_id)
        groups[name].append(doc_id)
    return groups.values()


def _mme(metric: str, results: Results) -> dict[int, Share]:
    found = {}
    for doc_id, result in results.items():
        one = result.get(metric)
        if one is None:
            found[doc_id] = Share(None)
            continue
        detail = {name: str(one[name]) for name in ("category", "question_id")}
        found[doc_id] = Share(float(one["score"]), detail)
    return found


def _pope(one: Mapping[str, Any]) -> Share:
    detail = {"prediction": str(one["prediction"]), "truth": str(one["ground_truth"])}
    return Share(float(one["score"]), detail)
