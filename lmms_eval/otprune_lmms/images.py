"""Images as the harness takes them, RGB and decoded in full; `ImageError` for any other."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile, UnidentifiedImageError

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""PIL's names of the formats that are read. None of them is a program or starts one."""


class ImageError(ValueError):
    """An image that cannot be used; the message names it."""


def as_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """Return a PIL image as RGB.

    Raises:
        ImageError: no PIL image, a file of a format that is not in `FORMATS`, a side of zero
            pixels, truncated data; the message has ``name``.
    """
    if not isinstance(image, Image.Image):
        raise ImageError(f"{name} must be a PIL image, got {type(image).__name__}")
    if min(image.size) == 0:
        raise ImageError(f"{name} has no pixels: its size is {image.width} x {image.height}")
    if image.format not in (None, *FORMATS):
        raise ImageError(
            f"{name} is {image.format}, which is not read; read are {', '.join(FORMATS)}"
        )
    try:
        return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ImageError(f"{name} cannot be read: {error}") from None


def open_image(path: Path) -> Image.Image:
    """Return a file's image as RGB, decoded in full.

    Raises:
        ImageError: the file is missing, truncated, of a format that is not in `FORMATS`, has a
            wrong checksum or no pixels, or is too large for PIL.
    """
    try:
        with guarded_images(), Image.open(path) as image:
            return as_rgb(image, str(path))
    except UnidentifiedImageError:
        raise ImageError(
            f"{path} is no image of a known format; known are {', '.join(FORMATS)}"
        ) from None
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


class _Guard:
    """What `guarded_images` has replaced, and how many contexts of all threads are open."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.open: Callable[..., Image.Image] = Image.open
        self.truncated = False

    def enter(self) -> None:
        with self.lock:
            if self.depth == 0:
                self.open, self.truncated = Image.open, ImageFile.LOAD_TRUNCATED_IMAGES
                Image.open = self.open_whole
            self.depth += 1
            # Set again each time: lmms-eval's tasks switch it on when they are imported.
            ImageFile.LOAD_TRUNCATED_IMAGES = False

    def leave(self) -> None:
        with self.lock:
            self.depth -= 1
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            if self.depth == 0:
                Image.open, ImageFile.LOAD_TRUNCATED_IMAGES = self.open, self.truncated

    def open_whole(
        self, fp: Any, mode: Any = "r", formats: Sequence[str] | None = None
    ) -> Image.Image:
        if isinstance(fp, str | os.PathLike):
            _check_no_pipe(Path(fp))
        named = [one for one in _known() if formats is None or one in formats]
        image = self.open(fp, mode, named)
        if image.format != "PNG":
            return image
        # Reading a PNG leaves its checksums alone; checking them spends the image.
        with image:
            image.verify()
        return self.open(fp, mode, named)


def _check_no_pipe(path: Path) -> None:
    """Raise ``OSError`` for a pipe, whose reader waits until something is written, or a device."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError("it is a pipe or a device, and no file")


def _known() -> list[str]:
    """Return the formats that this build of PIL has."""
    Image.init()
    return [one for one in FORMATS if one in Image.OPEN]


_GUARD = _Guard()


@contextmanager
def guarded_images() -> Iterator[None]:
    """In this context PIL opens nothing but whole files of the raster formats `FORMATS`.

    It holds for all threads and for other libraries' own decoding, such as that of `datasets`:
    PostScript is no image (PIL would have Ghostscript execute it), a truncated file is an error
    (lmms-eval's tasks have PIL fill it with grey), and so is a PNG with a wrong checksum.
    """
    _GUARD.enter()
    try:
        yield
    finally:
        _GUARD.leave()


def guard_images() -> None:
    """Do for the rest of the process what `guarded_images` does in a context."""
    _GUARD.enter()
