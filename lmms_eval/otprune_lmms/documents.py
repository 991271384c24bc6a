"""Documents that cannot be used: why, and how they are found while requests are built.

A document cannot be used if its requests cannot be built, its images cannot be read, or its context
places another number of images than it has.
"""

import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import jinja2
from PIL import Image

from otprune_lmms.images import guarded_images

BROKEN = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(AssertionError, SyntaxError, SystemError, struct.error, zlib.error),
    *(Image.DecompressionBombError, subprocess.SubprocessError, jinja2.TemplateError),
    NameError,
)
"""What a task's own code and the image libraries raise for a broken document: a damaged image, a
column that is empty or of another type, a template that it does not fit. `MemoryError` is left out:
only images cause it, which `engine.prepare.document_errors` sees to."""

SeedVideo = Literal["first_frame", "all_frames"]
"""How a video's frames are shown: the first alone, or all of them."""

DocumentKey = tuple[str, int]
"""Task and number of a document."""


@dataclass(frozen=True, slots=True, order=True)
class Failure:
    """A document that cannot be used.

    Attributes:
        task: the benchmark's name, or the task's id.
        doc_id: number of the document in its split.
        split: split of the task's dataset.
        reason: why, in a sentence.
    """

    task: str
    doc_id: int
    split: str
    reason: str

    @property
    def name(self) -> str:
        """The document in words, for messages."""
        return f"document {self.doc_id} of {self.task} ({self.split})"

    def plain(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def reason_of(error: BaseException) -> str:
    """Return an error about a document as one line."""
    message = " ".join(str(error).split())
    # Messages of other errors are about code and need their type: 'NoneType' object has no ...
    plain = isinstance(error, OSError | ValueError | SyntaxError) and message
    return message if plain else f"{type(error).__name__}: {message}"


@guarded_images()
def build_requests(
    task: Any, limit: int | None = None, rank: int = 0, world: int = 1
) -> dict[int, str]:
    """Build the instances of an lmms-eval task and store them in it (``task.instances``).

    Args:
        task: lmms-eval's task object.
        limit: documents from the start; None for all.
        rank: number of this process, which gets every ``world``-th document.
        world: number of processes.

    Returns:
        The reason for each document whose requests cannot be built, by number.

    Raises:
        ValueError: the task has no documents, or none that can be used.
    """
    failed: dict[int, str] = {}
    with _failures_noted(task, failed):
        try:
            task.build_all_requests(limit=limit, rank=rank, world_size=world)
        except ValueError as error:
            if failed:
                doc_id, reason = next(iter(failed.items()))
                raise ValueError(
                    f"none of the {len(failed)} documents of task {task.config.task} can be used; "
                    f"document {doc_id}: {reason}"
                ) from error
            raise
    return failed


@contextmanager
def _failures_noted(task: Any, failed: dict[int, str]) -> Iterator[None]:
    """In this context a task skips documents whose requests it cannot build; note them."""
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

    # Set on the object, where they take precedence over the methods of its class.
    task.fewshot_context, task.construct_requests = fewshot_context, construct_requests
    try:
        yield
    finally:
        del task.fewshot_context, task.construct_requests
