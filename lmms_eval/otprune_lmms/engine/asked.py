"""What a run is asked: requests, their questions, and documents that cannot be asked about."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from otprune_lmms.documents import Failure
from otprune_lmms.engine.requests import Request, RequestError, RequestKey
from otprune_lmms.engine.survey import Question
from otprune_lmms.journal import Asking, Ledger

Document = tuple[str, int]
"""Task and number of a document."""

LeaveOut = Callable[[Sequence[Failure]], Collection[Document]]
"""Is told the documents that cannot be asked about, before the first answer, and says which ones
are left out: these and more, as another question about the same image; or raises."""


class Asked:
    """The requests of a run, each with the question that it asks.

    Args:
        requests: as given; one may be there several times.

    Attributes:
        requests: those that are not left out, in order.
        different: the different ones among them.
        questions: by `Request.key`.
        failed: documents that cannot be asked about.

    Raises:
        RequestError: a request is there twice with different generation settings.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = tuple(requests)
        self._documents = {(one.task, one.doc_id) for one in requests}
        self.different = _different(requests)
        self.questions: dict[RequestKey, Question] = {}
        self.failed: list[Failure] = []

    def add(self, request: Request, found: Question | Failure) -> None:
        """Note what a request asks, or why it cannot be asked."""
        if isinstance(found, Failure):
            self.failed.append(found)
        else:
            self.questions[request.key] = found

    def leave_out(self, documents: Collection[Document]) -> None:
        """Let all requests of some documents go."""
        for one in self.different:
            if (one.task, one.doc_id) in documents:
                self.questions.pop(one.key, None)
        self.different = [one for one in self.different if one.key in self.questions]
        self.requests = tuple(one for one in self.requests if one.key in self.questions)

    def fail(self, reasons: Mapping[str, str]) -> None:
        """Let the documents go that ask questions which turned out not to be answerable.

        Args:
            reasons: by the question's hash.
        """
        asking = [one for one in self.different if self.questions[one.key].digest in reasons]
        self.failed += [one.failure(reasons[self.questions[one.key].digest]) for one in asking]
        self.leave_out({(one.task, one.doc_id) for one in asking})

    def unique(self) -> list[Question]:
        """Return the different questions, each as the first request that asks it."""
        found: dict[str, Question] = {}
        for request in self.different:
            question = self.questions[request.key]
            found.setdefault(question.digest, replace(question, request=request))
        return list(found.values())

    def ledger(self, model: str, name: str, experiment: str) -> Ledger:
        """Return what a journal notes of this: see `Ledger`."""
        requests = {
            Asking(one.task, one.doc_id, one.index, one.repeat): self.questions[one.key].digest
            for one in self.different
        }
        left = {(one.task, one.doc_id) for one in self.different}
        reasons = {(one.task, one.doc_id): one.reason for one in self.failed}
        others = "left out with another document"
        failed = [(*one, reasons.get(one, others)) for one in sorted(self._documents - left)]
        return Ledger(model, name, experiment, requests, failed)

    @property
    def digests(self) -> dict[RequestKey, str]:
        """Hash of each request's question."""
        return {key: question.digest for key, question in self.questions.items()}

    @property
    def images(self) -> dict[RequestKey, tuple[str, ...]]:
        """Hashes of each request's images."""
        return {key: question.images for key, question in self.questions.items()}


def _different(requests: Iterable[Request]) -> list[Request]:
    """Return the different requests, in order."""
    found: dict[RequestKey, Request] = {}
    for request in requests:
        if found.setdefault(request.key, request).generation != request.generation:
            raise RequestError(f"{request.name} is asked twice with other generation settings")
    return list(found.values())
