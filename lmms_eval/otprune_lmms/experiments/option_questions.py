"""Asks how likely each option of a question is, beside the answer.

The probability of an option is the likelihood of its text as the whole answer, divided by the sum
of those of all options. A text's likelihood is the product over all of its tokens, the end of the
turn included where the chat template has one: an option of several tokens is not favoured or
punished by a mean. Spellings of one option ("Yes", "yes") are summed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from otprune_lmms.benchmarks import Options
from otprune_lmms.engine import Answer, Request
from otprune_lmms.engine.answers import log_likelihood

OptionRule = Callable[[str, int], Options | None]
"""Returns the options of a task's document; None for a document without any."""

ColumnsByDocument = Mapping[int, Mapping[str, Any]]
"""Columns of samples about options, by document."""

NO_OPTIONS: Mapping[str, Any] = {"options": None, "probabilities": None, "right_option": None}
"""These columns of a document without options, or whose options were not asked about."""


@dataclass(frozen=True, slots=True)
class OptionQuestion:
    """The options of a document, and the request about each of their spellings.

    Attributes:
        options: the options.
        requests: by option and spelling, of kind "loglikelihood".
    """

    options: Options
    requests: tuple[tuple[Request, ...], ...]


@dataclass(frozen=True, slots=True)
class OptionDigests:
    """The options of a document, and where the journal has their likelihoods.

    Attributes:
        options: the options.
        digests: of the requests, by option and spelling.
    """

    options: Options
    digests: tuple[tuple[str, ...], ...]


def option_questions(requests: Iterable[Request], options: OptionRule) -> list[OptionQuestion]:
    """Return the questions about options of those documents that have some.

    Their prompt is that of a document's first request. Their numbers follow those of its requests.

    Args:
        requests: all requests about each document.
        options: the options of a document.
    """
    by_document: dict[tuple[str, int], list[Request]] = {}
    for request in requests:
        by_document.setdefault((request.task, request.doc_id), []).append(request)
    found = []
    for (task, doc_id), many in by_document.items():
        first = min(many, key=lambda one: (one.index, one.repeat))
        own = options(task, doc_id) if first.kind == "generate" else None
        if own is not None:
            found.append(_question(first, 1 + max(one.index for one in many), own))
    return found


def _question(first: Request, index: int, options: Options) -> OptionQuestion:
    asked = []
    for spellings in options.texts:
        asked.append(
            tuple(
                replace(first, kind="loglikelihood", continuation=text, index=index + number)
                for number, text in enumerate(spellings)
            )
        )
        index += len(spellings)
    return OptionQuestion(options, tuple(asked))


def probabilities(logs: Sequence[Sequence[float]]) -> list[float]:
    """Return the probability of each option, computed in float64; they add up to 1.

    Args:
        logs: log-likelihoods in nats, by option and spelling.
    """
    each = np.array([np.logaddexp.reduce(np.array(one, dtype=float)) for one in logs])
    shares = np.exp(each - each.max())
    return (shares / shares.sum()).tolist()


def option_columns(
    digests: Mapping[int, OptionDigests], answer: Callable[[int, str], Answer]
) -> ColumnsByDocument:
    """Return the columns of samples about options under one config.

    Args:
        digests: the options, by document.
        answer: returns the answer to a request of a document, by its digest.
    """
    return {
        doc_id: {
            "options": list(one.options.names),
            "probabilities": probabilities(
                [[log_likelihood(answer(doc_id, each)) for each in many] for many in one.digests]
            ),
            "right_option": one.options.right,
        }
        for doc_id, one in digests.items()
    }
