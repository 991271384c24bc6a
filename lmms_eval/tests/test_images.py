"""Whole files of raster formats, whoever opens them."""

import io
import os
import threading
from pathlib import Path

import datasets
import pytest
from PIL import EpsImagePlugin, Image, ImageFile, UnidentifiedImageError
from typer.testing import CliRunner

from broken_suites import POSTSCRIPT, jpeg, png, with_a_wrong_checksum
from helpers import TINY
from otprune_lmms.cli.app import app
from otprune_lmms.images import ImageError, as_rgb, guard_images, guarded_images, open_image


@pytest.fixture(autouse=True)
def ghostscript(monkeypatch):
    """How often PIL has asked for PostScript to be executed."""
    calls = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **_: calls.append(given))
    yield calls
    assert calls == []


@pytest.fixture
def bad(tmp_path):
    """Files that no image is read from, and what is said of them."""
    found = {
        "postscript.png": (POSTSCRIPT, "is no image of a known format; known are AVIF, BMP"),
        "checksum.png": (with_a_wrong_checksum(), "cannot be read: broken PNG file"),
        "half.png": (png(0)[:-40], "cannot be read"),
        "half.jpg": (jpeg()[:900], "cannot be read: image file is truncated"),
    }
    for name, (content, _) in found.items():
        (tmp_path / name).write_bytes(content)
    return {tmp_path / name: message for name, (_, message) in found.items()}


def test_bad_files_are_refused_also_after_lmms_eval_has_switched_truncated_ones_on(
    bad, monkeypatch
):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for path, message in bad.items():
        with pytest.raises(ImageError, match=message):
            open_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES
    with Image.open(io.BytesIO(POSTSCRIPT)) as opened, pytest.raises(ImageError, match="is EPS"):
        as_rgb(opened)


def test_the_command_prune_refuses_them(bad, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    for path, message in bad.items():
        given = ["prune", str(path), "--model", str(TINY), "--keep-ratio", "0.1"]
        done = CliRunner().invoke(app, given)
        assert done.exit_code in (1, 2)
        assert isinstance(done.exception, SystemExit)
        assert message in " ".join(done.output.split())


def test_a_pipe_that_nobody_writes_into_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "image.png")
    for path in (tmp_path / "image.png", Path(os.devnull)):
        with pytest.raises(ImageError, match=f"{path} cannot be read: it is a pipe or a device"):
            open_image(path)
        with guarded_images(), pytest.raises(OSError, match="it is a pipe"):
            datasets.Image().decode_example({"bytes": None, "path": str(path)})


def test_other_libraries_open_nothing_else_either(bad):
    feature, whole = datasets.Image(), png(0)
    for content in (POSTSCRIPT, with_a_wrong_checksum(), jpeg()[:900]):
        with guarded_images(), pytest.raises((OSError, SyntaxError)):
            feature.decode_example({"bytes": content, "path": None})
    with guarded_images():
        assert feature.decode_example({"bytes": whole, "path": None}).size == (42, 28)
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(POSTSCRIPT), formats=["EPS"])
        with Image.open(io.BytesIO(whole)) as image:
            assert image.convert("RGB").size == (42, 28)


def test_contexts_of_several_threads_end_in_any_order():
    before, inside, leave = Image.open, threading.Event(), threading.Event()

    def work():
        with guarded_images():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=work)
    with guarded_images():
        thread.start()
        inside.wait()
        ImageFile.LOAD_TRUNCATED_IMAGES = True  # as an import of lmms-eval's does
    assert Image.open is not before
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    leave.set()
    thread.join()
    assert Image.open is before


def test_a_process_may_be_guarded_for_good(monkeypatch):
    monkeypatch.setattr("otprune_lmms.images._GUARD", type(_guard())())
    before, truncated = Image.open, ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        guard_images()
        with guarded_images():
            pass
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(POSTSCRIPT))
    finally:
        Image.open, ImageFile.LOAD_TRUNCATED_IMAGES = before, truncated


def _guard():
    from otprune_lmms import images

    return images._GUARD
