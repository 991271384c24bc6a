"""Which patches are padding, against recorded values and against the pixels themselves."""

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import PARITY, ROOT, loaded, visual_of
from llava.images import ImageProcessor, process_images
from llava.images.padding import padding_patches

RECORDED = json.loads(
    (ROOT.parent / "tests/data/parity/methods/mmtok__text_and_padding.json").read_text()
)["padding"]
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]


def config(ratio):
    return SimpleNamespace(image_aspect_ratio=ratio, image_grid_pinpoints=PINPOINTS)


@pytest.mark.parametrize("entry", RECORDED, ids=lambda entry: str(entry["image_size"]))
def test_patches_of_padding_are_those_that_mmtok_s_release_excludes(entry):
    found = padding_patches(config("pad"), ImageProcessor(), tuple(entry["image_size"]), 1, 14)
    assert found.shape == (1, 576)
    assert found[0].nonzero()[:, 0].tolist() == sorted(entry["patches"])


@pytest.mark.parametrize("resize_to", [28, 32])
@pytest.mark.parametrize("ratio", ["pad", "anyres", "square"])
@given(width=st.integers(1, 90), height=st.integers(1, 90))
@example(width=3, height=90)
@example(width=90, height=3)
@settings(max_examples=25, deadline=None)
def test_patches_of_padding_have_no_pixel_of_the_image(ratio, resize_to, width, height):
    if max(width, height) > 30 * min(width, height):
        return  # less than a pixel may be left, of which the nearest filter may miss all
    # The nearest filter takes each pixel from the place of its middle.
    processor = ImageProcessor(side=28, resize_to=resize_to, resample=0)
    white = Image.new("RGB", (width, height), (255, 255, 255))
    tiles = process_images([white], processor, config(ratio))[0]
    tiles = tiles if tiles.ndim == 4 else tiles[None]
    shown = (tiles == processor.tile(white.resize((28, 28)))).all(1)
    patches = shown.unfold(1, 7, 7).unfold(2, 7, 7).flatten(3).any(3).flatten(1)
    found = padding_patches(config(ratio), processor, (width, height), len(tiles), 7)
    assert torch.equal(found, ~patches)


def test_something_of_the_thinnest_image_is_seen_and_nothing_is_said_of_unknown_ones():
    thin = padding_patches(config("pad"), ImageProcessor(), (1, 40000), 1, 14)
    assert 0 < int((~thin).sum()) <= 48
    assert padding_patches(config("pad"), ImageProcessor(), None, 1, 14) is None
    assert padding_patches(config("pad"), ImageProcessor(), (9, 9), 3, 14) is None
    assert padding_patches(config("anyres"), ImageProcessor(), (9, 9), 1, 14) is None


@pytest.mark.parametrize("version", ["v1.5", "v1.6"])
def test_the_signal_comes_with_the_tokens_and_newlines_are_no_padding(version):
    image = visual_of(f"checkpoints/tiny-llava-{version}", "images/land.png")
    padding = image.signals.padding
    assert padding.shape == (len(image),)
    assert padding.dtype == torch.bool
    if version == "v1.5":
        assert padding.nonzero()[:, 0].tolist() == sorted(RECORDED[0]["patches"])
    else:
        assert not padding[image.newline].any()
        assert not padding[:576].any(), "the first tile is the whole image"
    _, model, processor, _ = loaded(f"checkpoints/tiny-llava-{version}")
    pixels = process_images([Image.open(PARITY / "images/land.png")], processor, model.config)
    if version == "v1.5":
        assert model.encode_visual(pixels)[0].signals.padding is None
