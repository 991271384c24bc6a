"""The requests of a run, prepared, without the documents that cannot be used."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from otprune_lmms.documents import DocumentKey, Failure
from otprune_lmms.engine.prepare import PreparedRequest
from otprune_lmms.engine.requests import Request, RequestError, RequestKey
from otprune_lmms.journal import RequestList, RequestPlace

LeaveOut = Callable[[Sequence[Failure]], Collection[DocumentKey]]
"""Called once before the first answer with the documents that cannot be used. Returns further
documents to leave out, as those that are scored together with one of them; or raises."""


class RequestSet:
    """The requests of a run, each prepared or failed.

    Args:
        requests: in order; one may occur several times.

    Attributes:
        requests: those that are not left out, in order.
        different: the same, each once.
        prepared: prepared requests by `Request.key`.
        failed: documents that cannot be used.

    Raises:
        RequestError: a request occurs twice with different generation settings.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = tuple(requests)
        self._documents = {(one.task, one.doc_id) for one in requests}
        self.different = _different(requests)
        self.prepared: dict[RequestKey, PreparedRequest] = {}
        self.failed: list[Failure] = []

    def add(self, request: Request, found: PreparedRequest | Failure) -> None:
        """Add a request's prepared form, or the reason why its document cannot be used."""
        if isinstance(found, Failure):
            self.failed.append(found)
        else:
            self.prepared[request.key] = found

    def leave_out(self, documents: Collection[DocumentKey]) -> None:
        """Remove all requests about some documents."""
        for one in self.different:
            if (one.task, one.doc_id) in documents:
                self.prepared.pop(one.key, None)
        self.different = [one for one in self.different if one.key in self.prepared]
        self.requests = tuple(one for one in self.requests if one.key in self.prepared)

    def fail(self, reasons: Mapping[str, str]) -> None:
        """Remove the documents of requests whose images can no longer be read.

        Args:
            reasons: why, by the request's digest.
        """
        failing = [one for one in self.different if self.prepared[one.key].digest in reasons]
        self.failed += [one.failure(reasons[self.prepared[one.key].digest]) for one in failing]
        self.leave_out({(one.task, one.doc_id) for one in failing})

    def unique(self) -> list[PreparedRequest]:
        """Return one prepared request of each digest, that of the first request with it."""
        found: dict[str, PreparedRequest] = {}
        for request in self.different:
            prepared = self.prepared[request.key]
            found.setdefault(prepared.digest, replace(prepared, request=request))
        return list(found.values())

    def request_list(self, model: str, name: str, experiment: str) -> RequestList:
        """Return these requests as the journal stores them, see `RequestList`."""
        requests = {
            RequestPlace(one.task, one.doc_id, one.index, one.repeat): self.prepared[one.key].digest
            for one in self.different
        }
        remaining = {(one.task, one.doc_id) for one in self.different}
        reasons = {(one.task, one.doc_id): one.reason for one in self.failed}
        others = "left out with another document"
        failed = [(*one, reasons.get(one, others)) for one in sorted(self._documents - remaining)]
        return RequestList(model, name, experiment, requests, failed)


def _different(requests: Iterable[Request]) -> list[Request]:
    """Return the different requests, in order."""
    found: dict[RequestKey, Request] = {}
    for request in requests:
        if found.setdefault(request.key, request).generation != request.generation:
            raise RequestError(
                f"{request.name} has the same request again with other generation settings"
            )
    return list(found.values())
