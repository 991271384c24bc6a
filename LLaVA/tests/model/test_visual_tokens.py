"""Layouts of visual tokens against the merge written out in steps."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.images.layouts import get_anyres_image_grid_shape
from llava.model.multimodal_encoder.tower import TowerOutput
from llava.model.visual_tokens import gather_tokens, token_layout, unpad_image

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
# Published counts of LLaVA-1.6 for images of these sizes.
COUNTS = {
    (500, 375): 2340,
    (333, 512): 1476,
    (400, 400): 2928,
    (1000, 300): 2182,
    (640, 480): 2340,
    (480, 640): 2352,
    (640, 425): 2144,
    (336, 336): 1176,
    (1024, 1024): 2928,
    (100, 2000): 936,
}


def config(merge="spatial_unpad", ratio="anyres"):
    return SimpleNamespace(
        mm_patch_merge_type=merge, image_aspect_ratio=ratio, image_grid_pinpoints=PINPOINTS
    )


def merged_step_by_step(features, newline, size, unpad):
    """The merge as a plain loop over rows and columns of patches."""
    wide, high = get_anyres_image_grid_shape(size, PINPOINTS, 336)
    side = int(features.shape[1] ** 0.5)
    rows = []
    for y in range(high * side):
        row = []
        for x in range(wide * side):
            tile = 1 + (y // side) * wide + x // side
            row.append(features[tile, (y % side) * side + x % side])
        rows.append(torch.stack(row))
    raster = torch.stack(rows)
    if unpad:
        width, height = size
        if width / height > (wide * side) / (high * side):
            scaled = int(height * (wide * side / width))
            cut = (high * side - scaled) // 2
            raster = raster[cut : high * side - cut]
        else:
            scaled = int(width * (high * side / height))
            cut = (wide * side - scaled) // 2
            raster = raster[:, cut : wide * side - cut]
        ends = newline.expand(len(raster), 1, -1)
        raster = torch.cat([raster, ends], dim=1)
    return torch.cat([features[0], raster.flatten(0, 1)])


@given(width=st.integers(1, 2500), height=st.integers(1, 2500), unpad=st.booleans())
def test_the_merge_is_a_selection_of_rows(width, height, unpad):
    if max(width, height) > 30 * min(width, height):
        return
    side, d = 4, 3
    wide, high = get_anyres_image_grid_shape((width, height), PINPOINTS, 336)
    features = torch.randn(1 + wide * high, side * side, d)
    newline = torch.randn(d)
    settings = config("spatial_unpad" if unpad else "spatial")
    layout = token_layout(settings, len(features), (width, height), side, 336, side * side)
    image = gather_tokens(layout, features, newline, TowerOutput(features))
    want = merged_step_by_step(features, newline, (width, height), unpad)
    assert torch.equal(image.tokens, want)
    assert image.grid is None
    if unpad and len(image) > side * side:  # of a very thin image nothing but the base is left
        assert torch.equal(image.tokens[image.newline], newline.expand(image.newline.sum(), -1))
        assert not (image.tokens[~image.newline] == newline).all(1).any()
    else:
        assert image.newline is None


@pytest.mark.parametrize("size", COUNTS)
def test_token_counts_of_llava_1_6(size):
    wide, high = get_anyres_image_grid_shape(size, PINPOINTS, 336)
    layout = token_layout(config(), 1 + wide * high, size, 24, 336, 576)
    assert len(layout.source) == COUNTS[size]


def test_signals_travel_with_their_patches_and_are_zero_at_newlines():
    side, tiles, heads = 4, 5, 2
    features = torch.randn(tiles, side * side, 3)
    attention = torch.rand(tiles, heads, side * side)
    keys = torch.randn(tiles, side * side, 6)
    layout = token_layout(config(), tiles, (500, 375), side, 336, side * side)
    image = gather_tokens(
        layout,
        features,
        torch.zeros(3),
        TowerOutput(features, {"cls_attention": attention, "encoder_keys": keys}),
    )
    assert image.signals.cls_attention.shape == (heads, len(image))
    assert image.signals.encoder_keys.shape == (len(image), 6)
    for n, source in enumerate(layout.source.tolist()):
        if source < 0:
            assert (
                image.signals.cls_attention[:, n].abs().sum()
                == image.signals.encoder_keys[n].abs().sum()
                == 0
            )
        else:
            tile, patch = divmod(source, side * side)
            assert torch.equal(image.signals.cls_attention[:, n], attention[tile, :, patch])
            assert torch.equal(image.signals.encoder_keys[n], keys[tile, patch])


def test_flat_images_follow_tile_by_tile():
    layout = token_layout(config("flat"), 3, None, 4, 336, 16)
    assert layout.source.tolist() == list(range(48))
    assert layout.grid is None
    assert token_layout(config("flat"), 1, None, 4, 336, 16).grid == (4, 4)


def test_a_single_tile_gets_one_newline_under_unpad():
    layout = token_layout(config(), 1, None, 4, 336, 16)
    assert layout.source.tolist() == [*range(16), -1]
    assert token_layout(config("spatial"), 1, None, 4, 336, 16).source.tolist() == [*range(16)]


def test_a_layout_made_under_inference_mode_serves_recorded_gradients():
    arguments = (config(), 5, (401, 399), 4, 336, 16)
    with torch.inference_mode():
        token_layout(*arguments)
    features = torch.randn(5, 16, 3, requires_grad=True)
    layout = token_layout(*arguments)
    gather_tokens(layout, features, torch.zeros(3), TowerOutput(features)).tokens.sum().backward()
    assert features.grad is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((config("pool"), 1, None, 4, 336, 16), "must be flat, spatial or spatial_unpad"),
        ((config(), 4, (400, 400), 4, 336, 16), "has 1 \\+ 2 x 2 tiles, got 4: image_sizes"),
        ((config(), 5, None, 4, 336, 16), "need image_aspect_ratio anyres and image_sizes"),
        ((config(ratio="pad"), 5, (9, 9), 4, 336, 16), "need image_aspect_ratio anyres"),
        ((config(), 5, (400, 400), 4, 336, 17), "needs mm_vision_select_feature patch"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        token_layout(*arguments)


def test_a_model_without_a_newline_cannot_unpad():
    layout = token_layout(config(), 1, None, 4, 336, 16)
    with pytest.raises(ValueError, match="needs image_newline, the model has none"):
        gather_tokens(layout, torch.zeros(1, 16, 3), None, TowerOutput(torch.zeros(1, 16, 3)))


@given(rows=st.integers(1, 30), columns=st.integers(1, 30), data=st.data())
def test_unpadding_cuts_alike_on_both_sides(rows, columns, data):
    size = data.draw(st.tuples(st.integers(1, 999), st.integers(1, 999)))
    raster = torch.arange(rows * columns).view(1, rows, columns)
    cut = unpad_image(raster, size)
    top, left = divmod(int(cut[0, 0, 0]), columns) if cut.numel() else (rows, columns)
    if cut.numel():
        assert cut.shape == (1, rows - 2 * top, columns - 2 * left)
        assert top == 0 or left == 0
