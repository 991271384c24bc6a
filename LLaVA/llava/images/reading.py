"""Open images as the original does; errors name the broken image."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""PIL's names of the formats that are read: PIL would have Ghostscript execute PostScript."""

_WHOLE = threading.Lock()


class ImageError(ValueError):
    """An image cannot be used; the message names it."""


def open_image(source: str | PathLike[str] | bytes, name: str | None = None) -> Image.Image:
    """Return an image as RGB, decoded in full.

    As in the original code ``convert("RGB")`` is applied: alpha is dropped, palettes and greyscale
    become three channels, 16-bit values above 255 become 255. An EXIF orientation is not applied.

    Args:
        source: a path, or the bytes of a file.
        name: how error messages name it; the path if not given.

    Raises:
        ImageError: missing, truncated, with a wrong checksum, of a format that is not in `FORMATS`,
            without pixels, or too large for PIL.
    """
    name = name or (f"image of {len(source)} bytes" if isinstance(source, bytes) else str(source))
    try:
        with _whole_files(), _opened(source) as image:
            if image.format != "PNG":
                return as_rgb(image, name)
            # Reading a PNG leaves its checksums alone; checking them spends the image.
            image.verify()
            with _opened(source) as again:
                return as_rgb(again, name)
    except UnidentifiedImageError:
        raise ImageError(
            f"{name} is no image of a known format; known are {', '.join(FORMATS)}"
        ) from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name} cannot be read: {error}") from None


def picture(source: object, name: str = "image") -> Image.Image:
    """Return an image as RGB from any form in which users have one.

    Args:
        source: a path, the bytes of a file, a PIL image, or an array of 8-bit values: [h w] grey,
            [h w 3] RGB or [h w 4] RGBA.
        name: how messages name an image that has no path.

    Raises:
        ImageError: it is none of these, or cannot be read; see `open_image`.
    """
    if isinstance(source, Image.Image):
        return as_rgb(source, name)
    if isinstance(source, str | PathLike):
        return open_image(source)
    if isinstance(source, bytes):
        return open_image(source, name)
    if not isinstance(source, np.ndarray):
        raise ImageError(
            f"{name} must be a path, bytes, a PIL image or an array, got {type(source).__name__}"
        )
    channels = source.shape[2:] or (1,)
    if source.dtype != np.uint8 or source.ndim not in (2, 3) or channels[0] not in (1, 3, 4):
        raise ImageError(
            f"{name} must be an array of uint8 [h w], [h w 3] or [h w 4], "
            f"got {source.dtype} {list(source.shape)}"
        )
    if source.size == 0:
        raise ImageError(f"{name} has no pixels: its shape is {list(source.shape)}")
    pixels = source[..., 0] if channels[0] == 1 and source.ndim == 3 else source
    return as_rgb(Image.fromarray(np.ascontiguousarray(pixels)), name)


def _opened(source: str | PathLike[str] | bytes) -> Image.Image:
    if not isinstance(source, bytes):
        _check_no_pipe(Path(source))
    Image.init()
    known = [one for one in FORMATS if one in Image.OPEN]
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=known)


def _check_no_pipe(path: Path) -> None:
    """Raise ``OSError`` for a pipe, whose reader waits until something is written, or a device."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError("it is a pipe or a device, and no file")


@contextmanager
def _whole_files() -> Iterator[None]:
    """In this context truncated files are errors, even if another library has PIL fill them."""
    with _WHOLE:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def as_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """Return a PIL image as RGB.

    Raises:
        ImageError: no PIL image, a file of a format that is not in `FORMATS`, a side of zero
            pixels, truncated data; the message names ``name``.
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
