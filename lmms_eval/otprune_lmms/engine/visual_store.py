"""Visual tokens of images, encoded once and held for later batches."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.engine.prepare import PreparedRequest

ImageKey = tuple[str, str | None]
"""Hash of an image's content, and the image view that it is preprocessed under."""


def keys_of(one: PreparedRequest) -> list[ImageKey]:
    """Return the images of a request."""
    return [(image, one.prompt.image_view) for image in one.images]


class VisualStore:
    """Visual tokens of the images used last, up to a number of bytes.

    Args:
        limit: bytes; what one batch needs is held even if it is more.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: OrderedDict[ImageKey, ImageTokens] = OrderedDict()

    def __contains__(self, key: ImageKey) -> bool:
        """Whether an image is there."""
        return key in self._held

    def missing(self, keys: Iterable[ImageKey]) -> list[ImageKey]:
        """Return the images that are not there, each once, in order."""
        return [key for key in dict.fromkeys(keys) if key not in self._held]

    def put(self, tokens: Mapping[ImageKey, ImageTokens]) -> None:
        """Hold images."""
        self._held.update(tokens)

    def take(self, keys: Iterable[ImageKey]) -> dict[ImageKey, ImageTokens]:
        """Return images that are there, and count them as used last."""
        found = {}
        for key in dict.fromkeys(keys):
            self._held.move_to_end(key)
            found[key] = self._held[key]
        return found

    def shrink(self) -> None:
        """Drop what was used longest ago, down to the limit."""
        size = sum(tokens.nbytes for tokens in self._held.values())
        while size > self.limit and self._held:
            _, tokens = self._held.popitem(last=False)
            size -= tokens.nbytes
