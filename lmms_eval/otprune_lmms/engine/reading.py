"""Prepares requests and reads their images; unreadable documents are an error, or recorded."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from otprune.pruning.image_tokens import ImageTokens
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
        stored: visual tokens of images, from the disk.
        failed: why a request's images could not be read, by the request's digest.
    """

    batch: Batch
    pixels: dict[ImageKey, Pixels]
    failed: dict[str, str]
    stored: dict[ImageKey, ImageTokens] = field(default_factory=dict)

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
        stored: returns an image's visual tokens from the disk; None for one that is not there.
    """

    preparer: RequestPreparer
    store: VisualStore
    strict: bool
    stored: Callable[[ImageKey], ImageTokens | None] = lambda _: None

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
        """Return what a batch's images need to be encoded, or their tokens from the disk.

        Raises:
            DocumentError: one cannot be read, if ``strict``.
        """
        loaded = LoadedBatch(batch, {}, {})
        for one in batch:
            keys = keys_of(one)
            missing = [key for key in keys if key not in loaded.pixels and key not in self.store]
            for key in missing:
                if key not in loaded.stored and (tokens := self.stored(key)) is not None:
                    loaded.stored[key] = tokens
            if all(key in loaded.stored for key in missing):
                continue
            try:
                pixels = self._pixels(one, keys)
                loaded.pixels.update((k, v) for k, v in pixels.items() if k not in loaded.stored)
            except DocumentError as error:
                if self.strict:
                    raise
                loaded.failed[one.digest] = error.failure.reason
        return loaded

    def complete(self, loaded: LoadedBatch) -> LoadedBatch:
        """Return a batch, with what is needed of images that the store has dropped meanwhile.

        Raises:
            DocumentError: one cannot be read, if ``strict``.
        """
        keys = (key for one in loaded.readable for key in keys_of(one))
        known = loaded.pixels.keys() | loaded.stored.keys()
        if all(key in known for key in self.store.missing(keys)):
            return loaded
        again = self.load(loaded.batch)
        return LoadedBatch(
            loaded.batch,
            again.pixels | loaded.pixels,
            again.failed | loaded.failed,
            again.stored | loaded.stored,
        )

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
