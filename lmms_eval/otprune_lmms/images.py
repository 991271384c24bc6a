"""Images as the harness takes them, RGB and decoded in full; `ImageError` for any other."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError


class ImageError(ValueError):
    """An image that cannot be used; the message names it."""


def as_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """Return a PIL image as RGB.

    Raises:
        ImageError: no PIL image, a side of zero pixels, truncated data; the message has ``name``.
    """
    if not isinstance(image, Image.Image):
        raise ImageError(f"{name} must be a PIL image, got {type(image).__name__}")
    if min(image.size) == 0:
        raise ImageError(f"{name} has no pixels: its size is {image.width} x {image.height}")
    try:
        return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ImageError(f"{name} cannot be read: {error}") from None


def open_image(path: Path) -> Image.Image:
    """Return a file's image as RGB, decoded in full.

    Raises:
        ImageError: the file is missing, truncated, of an unknown format, without pixels, or too
            large for PIL.
    """
    try:
        with Image.open(path) as image:
            return as_rgb(image, str(path))
    except UnidentifiedImageError:
        raise ImageError(f"{path} is no image of a known format") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} cannot be read: {error}") from None


def image_hash(image: Image.Image) -> str:
    """Return SHA-256 over size and RGB pixels, as hex: it identifies an image by its content.

    Raises:
        ImageError: see `as_rgb`.
    """
    rgb = as_rgb(image)
    digest = hashlib.sha256(f"RGB {rgb.width} {rgb.height} ".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def image_cluster(hashes: Sequence[str]) -> str:
    """Return a hash (16 hex digits) that documents with the same images share; "" without images.

    Args:
        hashes: `image_hash` of each of a document's images.
    """
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16] if hashes else ""


@contextmanager
def refuse_truncated_images() -> Iterator[None]:
    """In this context truncated images are errors; lmms-eval's tasks fill them with grey."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
