"""A cache of visual tokens: images are encoded once and held for later batches."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.engine.prepare import PreparedRequest

ImageKey = tuple[str, str | None]
"""Hash of an image's content, and the image view that it is preprocessed under."""


def keys_of(one: PreparedRequest) -> list[ImageKey]:
    """Return the keys of a request's images."""
    return [(image, one.prompt.image_view) for image in one.images]


class VisualStore:
    """Visual tokens of the images used most recently.

    Args:
        limit: bytes after `shrink`; until then the store may be larger.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: OrderedDict[ImageKey, ImageTokens] = OrderedDict()

    def __contains__(self, key: ImageKey) -> bool:
        """Whether an image is held."""
        return key in self._held

    def missing(self, keys: Iterable[ImageKey]) -> list[ImageKey]:
        """Return the keys that are not held, each once, in order."""
        return [key for key in dict.fromkeys(keys) if key not in self._held]

    def put(self, tokens: Mapping[ImageKey, ImageTokens]) -> None:
        """Add images."""
        self._held.update(tokens)

    def take(self, keys: Iterable[ImageKey]) -> dict[ImageKey, ImageTokens]:
        """Return images that are held, and mark them as used most recently."""
        found = {}
        for key in dict.fromkeys(keys):
            self._held.move_to_end(key)
            found[key] = self._held[key]
        return found

    def shrink(self) -> None:
        """Drop the least recently used images, down to the limit."""
        size = sum(tokens.nbytes for tokens in self._held.values())
        while size > self.limit and self._held:
            _, tokens = self._held.popitem(last=False)
            size -= tokens.nbytes
