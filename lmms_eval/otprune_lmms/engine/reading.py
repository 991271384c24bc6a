"""Prepares requests and reads their images; unreadable documents are an error, or recorded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from otprune_lmms.documents import Failure
from otprune_lmms.engine.batches import Batch
from otprune_lmms.engine.memory import TooLargeError
from otprune_lmms.engine.prepare import PreparedRequest, RequestPreparer, document_errors
from otprune_lmms.engine.requests import DocumentError, Request, RequestError
from otprune_lmms.engine.visual_store import ImageKey, VisualStore, keys_of
from otprune_lmms.models.protocol import Pixels


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """A batch of requests with pixel values of its images, as far as they could be read.

    Attributes:
        batch: the requests.
        pixels: pixel values of the images that were not encoded yet.
        failed: why a request's images could not be read, by the request's digest.
    """

    batch: Batch
    pixels: dict[ImageKey, Pixels]
    failed: dict[str, str]

    @property
    def readable(self) -> Batch:
        """The requests whose images could be read."""
        return [one for one in self.batch if one.digest not in self.failed]


@dataclass(frozen=True, slots=True)
class RequestReader:
    """Prepares requests and reads their images, on any thread.

    Attributes:
        preparer: prepares requests for the model.
        store: encoded images, which are not read again.
        strict: whether a document that cannot be used is an error.
    """

    preparer: RequestPreparer
    store: VisualStore
    strict: bool

    def prepare(self, request: Request) -> PreparedRequest | Failure:
        """Return a request prepared, or why its document cannot be used.

        Raises:
            DocumentError: it cannot be used, if ``strict``.
        """
        try:
            return self.preparer.prepare(request)
        except DocumentError as error:
            if self.strict:
                raise
            return error.failure

    def load(self, batch: Batch) -> LoadedBatch:
        """Return the pixel values of a batch's images that are not encoded yet.

        Raises:
            DocumentError: one cannot be read, if ``strict``.
        """
        loaded = LoadedBatch(batch, {}, {})
        for one in batch:
            keys = keys_of(one)
            if all(key in loaded.pixels or key in self.store for key in keys):
                continue
            try:
                loaded.pixels.update(self._pixels(one, keys))
            except DocumentError as error:
                if self.strict:
                    raise
                loaded.failed[one.digest] = error.failure.reason
        return loaded

    def complete(self, loaded: LoadedBatch) -> LoadedBatch:
        """Return a batch, with pixel values of images that the store has dropped since it was read.

        Raises:
            DocumentError: one cannot be read, if ``strict``.
        """
        keys = (key for one in loaded.readable for key in keys_of(one))
        if all(key in loaded.pixels for key in self.store.missing(keys)):
            return loaded
        again = self.load(loaded.batch)
        return LoadedBatch(loaded.batch, again.pixels | loaded.pixels, again.failed | loaded.failed)

    def _pixels(self, one: PreparedRequest, keys: Sequence[ImageKey]) -> dict[ImageKey, Pixels]:
        images = dict(zip(keys, self.preparer.images(one.request), strict=True))
        model, view = self.preparer.model, one.prompt.image_view
        with document_errors(one.request):
            return {key: model.preprocess(image, view) for key, image in images.items()}


@contextmanager
def named_if_too_large(requests: Sequence[PreparedRequest]) -> Iterator[None]:
    """In this context `TooLargeError` becomes a `RequestError` that names the request."""
    try:
        yield
    except TooLargeError as error:
        culprits = [r for r in requests if r is error.item or error.item in keys_of(r)]
        raise RequestError(
            f"{culprits[0].request.name} alone does not fit into memory: {error}"
        ) from error
