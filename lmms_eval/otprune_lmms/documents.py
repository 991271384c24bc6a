"""Documents that cannot be used: what is known of them, and how they are found."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

BROKEN = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(AssertionError, SyntaxError, SystemError, struct.error, zlib.error),
    Image.DecompressionBombError,
)
"""What a task's own code and the libraries below it raise where a document is broken: image
formats, columns that are empty or of another type. Not a lack of memory, which is no document's."""


@dataclass(frozen=True, slots=True, order=True)
class Failure:
    """A document that cannot be used.

    Attributes:
        task: id of the task.
        doc_id: number of the document in its split.
        split: of the task's dataset.
        reason: in words.
    """

    task: str
    doc_id: int
    split: str
    reason: str

    @property
    def name(self) -> str:
        """The document in words."""
        return f"document {self.doc_id} of {self.task} ({self.split})"

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def reason_of(error: BaseException) -> str:
    """Return in words what an error says about a document, in one line."""
    said = " ".join(str(error).split())
    # Others speak of code, and mean nothing without their name: 'NoneType' object has no ...
    named = isinstance(error, OSError | ValueError | SyntaxError) and said
    return said if named else f"{type(error).__name__}: {said}"


def build_requests(
    task: Any, limit: int | None = None, rank: int = 0, world: int = 1
) -> dict[int, str]:
    """Build the instances of an lmms-eval task, which then holds them (``task.instances``).

    Returns:
        Documents among them whose own requests cannot be built, with the reason.

    Raises:
        ValueError: the task has no documents, or none that can be used.
    """
    failed: dict[int, str] = {}
    with _noting(task, failed):
        try:
            task.build_all_requests(limit=limit, rank=rank, world_size=world)
        except ValueError as error:
            if failed:
                doc_id, reason = next(iter(failed.items()))
                raise ValueError(
                    f"none of the {len(failed)} documents of task {task.config.task} can be asked "
                    f"about; document {doc_id}: {reason}"
                ) from error
            raise
    return failed


@contextmanager
def _noting(task: Any, failed: dict[int, str]) -> Iterator[None]:
    """Let a task build no request of a document that it cannot build one of, and note it."""
    context, construct = task.fewshot_context, task.construct_requests

    def fewshot_context(*args: Any, **kwargs: Any) -> Any:
        try:
            return context(*args, **kwargs)
        except BROKEN as error:
            return error

    def construct_requests(doc_id: int, ctx: Any, **kwargs: Any) -> Any:
        try:
            if isinstance(ctx, BaseException):
                raise ctx
            return construct(doc_id=doc_id, ctx=ctx, **kwargs)
        except BROKEN as error:
            failed[doc_id] = reason_of(error)
            return []

    # On the object, before its class's own methods.
    task.fewshot_context, task.construct_requests = fewshot_context, construct_requests
    try:
        yield
    finally:
        del task.fewshot_context, task.construct_requests
