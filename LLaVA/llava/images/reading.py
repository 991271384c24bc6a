"""Open images as the original does; errors name the broken image."""

from io import BytesIO
from os import PathLike

from PIL import Image, UnidentifiedImageError


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
        ImageError: missing, truncated, of an unknown format, without pixels, or too large for PIL.
    """
    name = name or (f"image of {len(source)} bytes" if isinstance(source, bytes) else str(source))
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            return as_rgb(image, name)
    except UnidentifiedImageError:
        raise ImageError(f"{name} is no image of a known format") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name} cannot be read: {error}") from None


def as_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """Return a PIL image as RGB.

    Raises:
        ImageError: no PIL image, a side of zero pixels, truncated data; the message names ``name``.
    """
    if not isinstance(image, Image.Image):
        raise ImageError(f"{name} must be a PIL image, got {type(image).__name__}")
    if min(image.size) == 0:
        raise ImageError(f"{name} has no pixels: its size is {image.width} x {image.height}")
    try:
        return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ImageError(f"{name} cannot be read: {error}") from None
