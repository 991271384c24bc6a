"""Files as the original opens them, and errors that name the file."""

import base64
import io
import os
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from helpers import PARITY
from llava.images import ImageError, as_rgb, open_image
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


def test_a_pipe_that_nobody_writes_into_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "image.png")
    for path in (tmp_path / "image.png", os.devnull):
        with pytest.raises(ImageError, match=f"{path} cannot be read: it is a pipe or a device"):
            open_image(path)


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


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{ } loop\n%%EOF\n"


@pytest.fixture
def ghostscript(monkeypatch):
    """How often PIL has asked for PostScript to be executed."""
    calls = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **_: calls.append(given))
    return calls


def test_postscript_is_never_executed(tmp_path, ghostscript):
    (tmp_path / "photo.png").write_bytes(POSTSCRIPT)
    for source in (POSTSCRIPT, tmp_path / "photo.png"):
        with pytest.raises(ImageError, match="is no image of a known format; known are AVIF, BMP"):
            open_image(source)
    with Image.open(io.BytesIO(POSTSCRIPT)) as opened, pytest.raises(ImageError, match="x is EPS"):
        as_rgb(opened, "x")
    assert ghostscript == []


def test_a_png_with_a_wrong_checksum_is_broken():
    content = bytearray(encoded(noise()))
    place = content.index(b"IDAT") + 4
    size = int.from_bytes(content[place - 8 : place - 4], "big")
    assert zlib.crc32(content[place - 4 : place + size]) == int.from_bytes(
        content[place + size : place + size + 4], "big"
    )
    content[place + size] ^= 1
    with pytest.raises(ImageError, match="cannot be read: broken PNG file"):
        open_image(bytes(content))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_files_are_broken_whatever_another_library_has_set(kind, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = encoded(noise(), kind)
    with pytest.raises(ImageError, match="cannot be read"):
        open_image(content[: len(content) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES
    assert open_image(content).size == (200, 200)
