"""Images become visual tokens, once each."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from llava.images import process_images
from otprune.pruning.image_tokens import ImageTokens

ImageKey = tuple[str, str | None]
"""Hash of an image's content, and the ``image_aspect_ratio`` that it is seen under (None: the
model's own)."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """An image as the tower takes it.

    Attributes:
        values: [3 s s], or [t 3 s s] under anyres; float32 on the CPU.
        size: width and height of the image in pixels.
    """

    values: Tensor
    size: tuple[int, int]


def preprocess(image: Image.Image, processor: Any, config: Any, aspect: str | None) -> Pixels:
    """Return the pixel values of one image under the model's ``image_aspect_ratio`` or another."""
    view = config
    if aspect is not None:
        pinpoints = getattr(config, "image_grid_pinpoints", None)
        view = SimpleNamespace(image_aspect_ratio=aspect, image_grid_pinpoints=pinpoints)
    return Pixels(process_images([image], processor, view)[0], image.size)


def encode(model: Any, pixels: Sequence[Pixels], signals: frozenset[str]) -> list[ImageTokens]:
    """Return the visual tokens of images; all go through the tower at once."""
    values: Any = [one.values for one in pixels]
    if all(value.ndim == 3 for value in values):
        values = torch.stack(values)
    return model.encode_visual(values, [one.size for one in pixels], signals)


class VisualStore:
    """Visual tokens of the images seen last, up to a number of bytes.

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
        """Return images that are there, and count them as seen last."""
        found = {}
        for key in dict.fromkeys(keys):
            self._held.move_to_end(key)
            found[key] = self._held[key]
        return found

    def shrink(self) -> None:
        """Let go of what was seen longest ago, down to the limit."""
        size = sum(tokens.nbytes for tokens in self._held.values())
        while size > self.limit and self._held:
            _, tokens = self._held.popitem(last=False)
            size -= tokens.nbytes
