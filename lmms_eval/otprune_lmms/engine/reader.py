"""Reads requests and their images; documents that cannot be read are an error, or noted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from otprune_lmms.documents import Failure
from otprune_lmms.engine.memory import TooLargeError
from otprune_lmms.engine.requests import DocumentError, Request, RequestError
from otprune_lmms.engine.survey import Question, Surveyor, named
from otprune_lmms.engine.visual import ImageKey, Pixels, VisualStore, preprocess


@dataclass(frozen=True, slots=True)
class Loaded:
    """A batch of questions with its images, as far as they could be read.

    Attributes:
        batch: the questions.
        pixels: images that were not encoded yet.
        failed: why a question's images could not be read, by its hash.
    """

    batch: list[Question]
    pixels: dict[ImageKey, Pixels]
    failed: dict[str, str]

    @property
    def questions(self) -> list[Question]:
        """The questions whose images could be read."""
        return [question for question in self.batch if question.digest not in self.failed]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads what a run is asked, on any thread.

    Attributes:
        surveyor: reduces requests to questions.
        processor: the model's image processor.
        store: images that are encoded already are not read again.
        strict: whether a document that cannot be read is an error.
    """

    surveyor: Surveyor
    processor: Any
    store: VisualStore
    strict: bool

    def question(self, request: Request) -> Question | Failure:
        """Return what a request asks, or why it cannot be asked.

        Raises:
            DocumentError: it cannot be asked, if ``strict``.
        """
        try:
            return self.surveyor.question(request)
        except DocumentError as error:
            if self.strict:
                raise
            return error.failure

    def load(self, batch: list[Question]) -> Loaded:
        """Return the pixel values of a batch's images that are not encoded yet.

        Raises:
            DocumentError: one cannot be read, if ``strict``.
        """
        loaded = Loaded(batch, {}, {})
        for question in batch:
            keys = keys_of(question)
            if all(key in loaded.pixels or key in self.store for key in keys):
                continue
            try:
                loaded.pixels.update(self._pixels(question, keys))
            except DocumentError as error:
                if self.strict:
                    raise
                loaded.failed[question.digest] = error.failure.reason
        return loaded

    def complete(self, loaded: Loaded) -> Loaded:
        """Return a batch with the images that have left the store since it was read.

        Raises:
            DocumentError: one cannot be read, if ``strict``.
        """
        keys = (key for question in loaded.questions for key in keys_of(question))
        if all(key in loaded.pixels for key in self.store.missing(keys)):
            return loaded
        again = self.load(loaded.batch)
        return Loaded(loaded.batch, again.pixels | loaded.pixels, again.failed | loaded.failed)

    def _pixels(self, question: Question, keys: Sequence[ImageKey]) -> dict[ImageKey, Pixels]:
        pictures = dict(zip(keys, self.surveyor.pictures(question.request), strict=True))
        config, aspect = self.surveyor.config, question.generation.aspect
        with named(question.request):
            return {
                key: preprocess(picture, self.processor, config, aspect)
                for key, picture in pictures.items()
            }


def keys_of(question: Question) -> list[ImageKey]:
    """Return the images of a question."""
    return [(image, question.generation.aspect) for image in question.images]


@contextmanager
def named_if_too_large(questions: Sequence[Question]) -> Iterator[None]:
    """Say which request it is that alone does not fit into memory, in this context."""
    try:
        yield
    except TooLargeError as error:
        culprits = [q for q in questions if q is error.item or error.item in keys_of(q)]
        raise RequestError(
            f"{culprits[0].request.name} alone does not fit into memory: {error}"
        ) from error
