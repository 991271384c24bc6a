"""Images small enough for a page, each stored once."""

import base64
import hashlib
import io
from dataclasses import dataclass

from PIL import Image

SIDE = 384
"""Pixels of the longer side, at most."""

_QUALITY = 78


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of the page.

    Attributes:
        uri: the image itself, as ``data:``.
        width: of the image as the task gives it, pixels.
        height: likewise.
    """

    uri: str
    width: int
    height: int


class Album:
    """Pictures by number; equal images are one picture."""

    def __init__(self) -> None:
        self.pictures: list[Picture] = []
        self._numbers: dict[str, int] = {}

    def add(self, image: Image.Image) -> int:
        """Return the number of an image's picture, made small and stored if it is new."""
        rgb = image.convert("RGB")
        digest = hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()
        if digest not in self._numbers:
            self._numbers[digest] = len(self.pictures)
            self.pictures.append(Picture(data_uri(small(rgb), "image/webp"), *rgb.size))
        return self._numbers[digest]


def small(image: Image.Image, side: int = SIDE) -> bytes:
    """Return an RGB image as WebP, its longer side at most ``side`` pixels."""
    copy = image.copy()
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    stored = io.BytesIO()
    copy.save(stored, "WEBP", quality=_QUALITY, method=4)
    return stored.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Return content as a ``data:`` address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
