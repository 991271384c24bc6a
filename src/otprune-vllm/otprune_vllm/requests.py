"""What a processor tells a model about the pruning of an image: a text, as bytes beside the pixels.

The model may be in another process than the processor; only tensors travel between them.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from otprune.serving import ServedPruning


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """How an image is pruned.

    Attributes:
        pruning: method and ratio.
        image_id: a number made of the image's content, by which seeded methods tell images apart.
    """

    pruning: ServedPruning
    image_id: int | None = None

    def as_bytes(self) -> UInt8[Tensor, " bytes"]:
        """Return what `read` takes."""
        text = json.dumps([self.pruning.plain(), self.image_id])
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)

    @classmethod
    def read(cls, given: UInt8[Tensor, " bytes"]) -> "ImageRequest":
        """Return what `as_bytes` was called of."""
        settings, image_id = json.loads(bytes(given.cpu().tolist()))
        return cls(ServedPruning.read(settings), image_id)


def read_requests(given: Tensor | Iterable[Any]) -> list[ImageRequest]:
    """Return the requests of a batch, which vLLM has stacked where they are equally long."""
    rows = given.reshape(-1, given.shape[-1]) if isinstance(given, Tensor) else given
    return [ImageRequest.read(row.reshape(-1)) for row in rows]


def image_id(image: Any) -> int:
    """Return a number made of an image's size and RGB pixels; the harness numbers images so too.

    Args:
        image: of PIL, or an array [h w c].
    """
    shown = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    rgb = shown.convert("RGB")
    digest = hashlib.sha256(f"RGB {rgb.width} {rgb.height} ".encode())
    digest.update(rgb.tobytes())
    return int(digest.hexdigest()[:15], 16)
