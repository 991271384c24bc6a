"""Files as the original opens them, and errors that name the file."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from helpers import PARITY
from llava.images import ImageError, open_image
from llava.mm_utils import load_image_from_base64


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(mode: str) -> Image.Image:
    values = np.arange(12 * 10, dtype=np.uint8).reshape(10, 12) * 2
    return Image.fromarray(values).convert(mode)


def noise() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_becomes_rgb(mode):
    image = open_image(encoded(gradient(mode)))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(gradient(mode).convert("RGB")))


def test_alpha_is_dropped_and_not_blended():
    image = Image.new("RGBA", (2, 2), (250, 5, 5, 0))
    assert np.asarray(open_image(encoded(image)))[0, 0].tolist() == [250, 5, 5]


def test_16_bit_values_saturate():
    image = Image.fromarray(np.array([[0, 100, 255, 256, 65535]], dtype=np.uint16))
    assert np.asarray(open_image(encoded(image)))[0, :, 0].tolist() == [0, 100, 255, 255, 255]


def test_an_exif_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    image = open_image(encoded(gradient("RGB"), "JPEG", exif=exif))
    assert image.size == (12, 10)


def test_paths_and_base64_are_read_too(tmp_path):
    path = PARITY / "images" / "land.png"
    assert open_image(path).size == (500, 375)
    assert open_image(str(path)).size == (500, 375)
    assert load_image_from_base64(base64.b64encode(path.read_bytes())).size == (500, 375)


def test_broken_files_are_named(tmp_path):
    broken = {
        "missing.png": (None, "missing.png cannot be read"),
        "text.png": (b"hello", "text.png is no image of a known format"),
        "empty.png": (b"", "empty.png is no image of a known format"),
        "half.png": (encoded(noise())[:20000], "half.png cannot be read"),
        "half.jpg": (encoded(noise(), "JPEG")[:9000], "half.jpg cannot be read"),
    }
    for name, (content, message) in broken.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ImageError, match=message):
            open_image(path)
    with pytest.raises(ImageError, match="document 7 is no image"):
        open_image(b"hello", name="document 7")
    with pytest.raises(ImageError, match="image of 5 bytes is no image"):
        open_image(b"hello")


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(ImageError, match="bomb cannot be read: .*exceeds limit"):
        open_image(encoded(gradient("RGB")), name="bomb")
