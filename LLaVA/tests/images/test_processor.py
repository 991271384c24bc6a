"""Tiles of pixel values against transformers' slow processors, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import SiglipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from llava.images import ImageProcessor
from llava.images.processor import processor_from_config

CLIP_CONFIG = {
    "crop_size": 336,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 336,
}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@given(width=st.integers(1, 900), height=st.integers(1, 900), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_clip_tiles_are_transformers_own(width, height, seed):
    if max(width, height) > 40 * min(width, height):
        return  # thousands of pixels along the longer side once the shorter has 336
    image = picture(width, height, seed)
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size=336)
    want = theirs(image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(ImageProcessor().tile(image), want)


def test_all_values_of_a_pixel_are_normalised_alike():
    ramp = np.stack([np.arange(256, dtype=np.uint8)] * 256)
    image = Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp], axis=-1))
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 256}, crop_size=256)
    want = theirs(image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(ImageProcessor(side=256).tile(image), want)


@pytest.mark.parametrize("size", [(100, 80), (80, 100), (384, 384), (1, 1)])
def test_siglip_tiles_are_transformers_own(size):
    image = picture(*size)
    ours = processor_from_config(
        {"size": {"height": 384, "width": 384}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    )
    theirs = SiglipImageProcessorPil(size={"height": 384, "width": 384}, resample=3)
    assert torch.equal(ours.tile(image), theirs(image, return_tensors="pt")["pixel_values"][0])


@pytest.mark.parametrize("size", [(100, 80), (97, 300)])
@pytest.mark.parametrize("crop", [64, 60, 71])
def test_a_crop_smaller_or_larger_than_the_image_is_centred_the_same(size, crop):
    # A crop beyond the image pads with black, as the dinov2 preset never does but a user's may.
    ours = ImageProcessor(side=crop, resize_to=64)
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=crop)
    want = theirs(picture(*size), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(ours.tile(picture(*size)), want)


@pytest.mark.parametrize(
    "form",
    [
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
        {"size": 336, "crop_size": 336},
    ],
)
def test_stored_configurations_old_and_new_mean_the_same(form):
    assert processor_from_config({**CLIP_CONFIG, **form}) == ImageProcessor(resize_to=336)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_resize": False}, "do_resize must be true"),
        ({"do_normalize": False}, "do_normalize must be true"),
        ({"do_center_crop": False}, "tiles that are not square"),
        ({"crop_size": {"height": 336, "width": 300}}, "crop_size must be one number or equal"),
        ({"size": {"height": 336, "width": 300}}, "size must be one number or equal"),
        ({"image_mean": [0.5]}, "three entries"),
        ({"crop_size": 0}, "at least 1"),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        processor_from_config({**CLIP_CONFIG, **change})


def test_the_api_of_transformers_processors():
    processor = ImageProcessor()
    batch = processor.preprocess([picture(20, 30), picture(30, 20)], return_tensors="pt")
    assert batch["pixel_values"].shape == (2, 3, 336, 336)
    assert batch.pixel_values.dtype == torch.float32
    assert processor(picture(20, 30))["pixel_values"].shape == (1, 3, 336, 336)
    assert processor.crop_size["height"] == 336
    assert processor.size == {"shortest_edge": 336}
    assert processor.background == (122, 116, 104)
    with pytest.raises(ValueError, match="return_tensors must be 'pt', got 'np'"):
        processor.preprocess(picture(2, 2), return_tensors="np")
