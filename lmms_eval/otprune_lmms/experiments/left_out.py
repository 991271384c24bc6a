"""Documents that cannot be used: they are left out under every pruning config, and reported."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

from otprune_lmms.documents import Failure
from otprune_lmms.scoring import TaskScorer

logger = logging.getLogger(__name__)

_NAMED = 5
"""Most documents of a task that a message names."""


def left_out(failures: Iterable[Failure], scorers: Mapping[str, TaskScorer]) -> list[Failure]:
    """Return the documents that are left out of an experiment, in order, each once.

    These are the documents that cannot be used, those whose requests cannot be built, and those
    that are scored as one with any of them.

    Args:
        failures: of all processes and models.
        scorers: scorers of the tasks by name.

    Raises:
        ValueError: more than half of a task's documents: then the data or the task's code is wrong.
    """
    known = {(one.task, one.doc_id): one for one in sorted(failures, reverse=True)}
    found = []
    for task, scorer in scorers.items():
        for doc_id, reason in scorer.failed.items():
            known.setdefault((task, doc_id), Failure(task, doc_id, scorer.split, reason))
        first = {doc_id for name, doc_id in known if name == task}
        for doc_id in sorted(scorer.left_out(first)):
            with_another = Failure(task, doc_id, scorer.split, _with_another(scorer, first, doc_id))
            found.append(known.get((task, doc_id), with_another))
        _check(task, [one for one in found if one.task == task], len(scorer))
    return found


def log_left_out(failures: Sequence[Failure], scorers: Mapping[str, TaskScorer]) -> None:
    """Log which documents are left out, a line for each task."""
    for task, scorer in scorers.items():
        own = [one for one in failures if one.task == task]
        if own:
            logger.warning(
                "%s: %s of %s documents cannot be used and are left out of every row: %s",
                *(task, len(own), len(scorer), _few(own)),
            )


def _check(task: str, failures: Sequence[Failure], documents: int) -> None:
    if 2 * len(failures) > documents:
        raise ValueError(
            f"{len(failures)} of the {documents} documents of task {task} cannot be used, "
            f"too many to be left out: {_few(failures)}"
        )


def _few(failures: Sequence[Failure]) -> str:
    named = [f"document {one.doc_id} ({one.reason})" for one in failures[:_NAMED]]
    more = len(failures) - _NAMED
    return ", ".join(named) + (f", and {more} more" if more > 0 else "")


def _with_another(scorer: TaskScorer, failed: Collection[int], doc_id: int) -> str:
    others = (one for one in sorted(failed) if doc_id in scorer.left_out({one}))
    return f"scored as one with document {next(others, None)}"
