"""Documents whose reference cannot be scored, found before any answer is made."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from otprune_lmms.benchmarks import Benchmark
from otprune_lmms.documents import BROKEN, reason_of

_TEXTS = ("", "yes", "A")
_LOSSES = ((1.0, False), (0.5, True))
"""Trial answers: a text, or a loss and whether it is greedy."""

_LONGEST = 200
"""Letters of a reason."""


def unusable_references(
    task: Any,
    record: Benchmark | None,
    documents: Iterable[tuple[int, Mapping[str, Any]]],
    requests: Mapping[int, int],
) -> dict[int, str]:
    """Return the reason for each document whose reference is empty, or that cannot be scored.

    Args:
        task: lmms-eval's task object; its code is called, see `process_results`.
        record: the benchmark's record. With one the task's code scores some trial answers to each
            document, and a document on which it fails with all of them cannot be scored. None for a
            task without a record: its code may ask a judge, and its target may be empty for all.
        documents: numbers and contents, without images.
        requests: number of requests about each document.

    Raises:
        ValueError: no document can be scored: a column is missing, or the task's file is wrong.
    """
    empty: dict[int, str] = {}
    found: dict[int, str] = {}
    number = 0
    for doc_id, document in documents:
        number += 1
        try:
            target = _reference(task, record, document)
        except BROKEN as error:
            found[doc_id] = f"its reference cannot be read: {reason_of(error)}"
            continue
        if _is_empty(target):
            empty[doc_id] = "no answer equals its reference, which is empty or none of the options"
        elif record is not None:
            error = _failure(task, record, document, requests[doc_id])
            if error is not None:
                reason = f"it cannot be scored: {reason_of(error)}".rstrip(": ")
                found[doc_id] = f"{reason}; its reference is {target!r}"[:_LONGEST]
    if record is not None or len(empty) < number:
        found |= empty
    if found and len(found) == number:
        doc_id, reason = next(iter(sorted(found.items())))
        raise ValueError(
            f"none of the {number} documents of task {task.config.task} can be scored; "
            f"document {doc_id}: {reason}"
        )
    return found


def _reference(task: Any, record: Benchmark | None, document: Mapping[str, Any]) -> Any:
    if record is not None and record.reference is not None:
        return record.reference(document)
    return task.doc_to_target(dict(document))


def process_results(task: Any, document: Mapping[str, Any], results: Sequence[Any]) -> Any:
    """Return what a task makes of the answers to one document.

    lmms-eval's own function of this name tries five times, two seconds apart, and says nothing of
    the error.
    """
    stock = type(task).process_results
    return getattr(stock, "__wrapped__", stock)(task, dict(document), list(results))


def _failure(
    task: Any, record: Benchmark, document: Mapping[str, Any], requests: int
) -> Exception | None:
    """Return the error of the last trial answer, if the task's code fails on all of them."""
    found: Exception | None = None
    for answer in _LOSSES if task.OUTPUT_TYPE == "loglikelihood" else _TEXTS:
        try:
            results = process_results(task, document, [answer] * requests)
            if record.kind == "caption":
                # Captions are scored together, and told apart by this number.
                int(results[record.metric]["image_id"])
        except BROKEN as error:
            found = error
        else:
            return None
    return found


def _is_empty(target: Any) -> bool:
    """Return whether a target says nothing: None, no text, a list without or with such."""
    if isinstance(target, list | tuple):
        return None in target or all(map(_is_empty, target))
    return target is None or (isinstance(target, str) and not target.strip())
