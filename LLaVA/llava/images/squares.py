"""An image in the middle of a square, also where the square would not fit into memory."""

from PIL import Image

from llava.images.reading import ImageError

MOST_PIXELS = 1 << 26
"""Pixels of an image that is made in one piece, 256 MiB; of a larger square only strips are."""

LONGEST_SIDE = 20_000
"""Longest side of an image that is padded to a square: time grows with its square."""


def expand2square(pil_img: Image.Image, background_color: tuple[int, ...]) -> Image.Image:
    """Return the image in the middle of a square of its longer side."""
    width, height = pil_img.size
    if width == height:
        return pil_img
    side = max(width, height)
    square = Image.new(pil_img.mode, (side, side), background_color)
    square.paste(pil_img, ((side - width) // 2, (side - height) // 2))
    return square


def resized_square(
    image: Image.Image,
    colour: tuple[int, int, int],
    side: int,
    resample: int,
    most_pixels: int | None = None,
) -> Image.Image:
    """Return `expand2square` of an RGB image, resized to ``side`` x ``side`` if it is large.

    PIL resamples the rows of an image first, each by itself, and then its columns. So strips of the
    square can be resampled one after the other, and every pixel is the same.

    Args:
        image: the image.
        colour: of the padding.
        side: sides of the result, where the square has more than ``most_pixels``.
        resample: PIL's number of the filter.
        most_pixels: pixels of the largest square that is made in one piece; `MOST_PIXELS` if not
            given.

    Raises:
        ImageError: a side longer than `LONGEST_SIDE`.
    """
    most_pixels = MOST_PIXELS if most_pixels is None else most_pixels
    width, height = image.size
    longest = max(width, height)
    if width == height or longest**2 <= most_pixels:
        return expand2square(image, colour)
    if longest > LONGEST_SIDE:
        raise ImageError(
            f"the image must have sides of at most {LONGEST_SIDE} pixels to be padded to a square, "
            f"its size is {width} x {height}"
        )
    left, top = (longest - width) // 2, (longest - height) // 2
    narrow = Image.new("RGB", (side, longest))
    rows = max(1, most_pixels // 4 // longest)
    for first in range(0, longest, rows):
        strip = Image.new("RGB", (longest, min(rows, longest - first)), colour)
        strip.paste(image, (left, top - first))
        narrow.paste(strip.resize((side, strip.height), resample), (0, first))
    return narrow.resize((side, side), resample)
