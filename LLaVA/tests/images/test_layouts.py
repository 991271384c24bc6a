"""Which tiles an image becomes, against plain re-derivations and recorded pixels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import PARITY, arrays, case_id, cases, loaded
from llava.images import ImageError, ImageProcessor, process_images, squares
from llava.images.layouts import expand2square, get_anyres_image_grid_shape, select_best_resolution
from llava.images.squares import resized_square

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
BEST = {
    (500, 375): (672, 672),
    (333, 512): (336, 672),
    (400, 400): (672, 672),
    (1000, 300): (1008, 336),
    (640, 480): (672, 672),
    (480, 640): (672, 672),
    (640, 425): (672, 672),
    (336, 336): (336, 672),
    (1024, 1024): (672, 672),
    (100, 2000): (336, 1008),
}


def config(ratio, **more):
    return SimpleNamespace(image_aspect_ratio=ratio, image_grid_pinpoints=PINPOINTS, **more)


@pytest.mark.parametrize("entry", cases("visual"), ids=case_id)
def test_pixels_are_the_original_s(entry):
    _, model, processor, _ = loaded(entry["checkpoint"])
    pixels = process_images([Image.open(PARITY / entry["image"])], processor, model.config)
    want = arrays(entry)
    tiles = pixels[0] if pixels.ndim == 5 else pixels
    assert len(tiles) == int(want["tiles"])
    means = tiles.double().mean((-2, -1))
    assert torch.allclose(means, want["pixel_mean"].double().view(means.shape), atol=1e-6)


@pytest.mark.parametrize("size", BEST)
def test_the_best_resolution_is_the_original_s(size):
    assert select_best_resolution(size, PINPOINTS) == BEST[size]
    wide, high = BEST[size]
    for given in (PINPOINTS, str(PINPOINTS)):
        assert get_anyres_image_grid_shape(size, given, 336) == (wide // 336, high // 336)


def test_the_thinnest_image_has_a_best_resolution_and_nothing_has_none():
    assert select_best_resolution((1, 100000), PINPOINTS) == (336, 672)
    with pytest.raises(ValueError, match="must name at least one"):
        select_best_resolution((10, 10), [])


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (21, 20), (20, 20)])
def test_padding_puts_the_image_in_the_middle_of_the_mean_colour(size):
    image = Image.new("RGB", size, (255, 0, 0))
    square = np.asarray(expand2square(image, (122, 116, 104)))
    side = max(size)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    inside = np.zeros((side, side), dtype=bool)
    inside[top : top + size[1], left : left + size[0]] = True
    assert square.shape == (side, side, 3)
    assert (square[inside] == (255, 0, 0)).all()
    assert (square[~inside] == (122, 116, 104)).all()


def test_anyres_is_the_squeezed_image_and_then_its_tiles():
    image = Image.new("RGB", (1200, 350), (200, 10, 10))
    processor = ImageProcessor()
    tiles = process_images([image], processor, config("anyres"))[0]
    assert tiles.shape == (4, 3, 336, 336)  # 1008 x 336 fits best
    assert torch.equal(tiles[0], processor.tile(image.resize((336, 336))))
    canvas = Image.new("RGB", (1008, 336), (0, 0, 0))
    canvas.paste(image.resize((1008, 294)), (0, (336 - 294) // 2))
    for number, tile in enumerate(tiles[1:]):
        cut = canvas.crop((number * 336, 0, (number + 1) * 336, 336))
        assert torch.equal(tile, processor.tile(cut))


def test_images_of_unequal_tile_counts_come_as_a_list():
    images = [Image.new("RGB", (400, 400)), Image.new("RGB", (333, 512))]
    several = process_images(images, ImageProcessor(), config("anyres"))
    assert isinstance(several, list)
    assert [len(tiles) for tiles in several] == [5, 3]
    alike = process_images([images[0]] * 2, ImageProcessor(), config("anyres"))
    assert alike.shape == (2, 5, 3, 336, 336)


@pytest.mark.parametrize("ratio", [None, "square", "original"])
def test_other_ratios_scale_and_crop(ratio):
    image = Image.new("RGB", (90, 60), (9, 99, 199))
    tiles = process_images([image, image], ImageProcessor(), config(ratio))
    assert tiles.shape == (2, 3, 336, 336)
    assert torch.equal(tiles[0], ImageProcessor().tile(image))


def test_anyres_serves_towers_that_squeeze_their_tiles():
    siglip = ImageProcessor(side=336, fit="exact", image_mean=[0.5] * 3, image_std=[0.5] * 3)
    image = Image.new("RGB", (400, 300), (1, 2, 3))
    tiles = process_images([image], siglip, config("anyres"))[0]
    assert torch.equal(tiles[0], siglip.tile(image.resize((336, 336))))


@pytest.mark.parametrize("pinpoints", ["(1x1),...,(6x6)", None, "[1, 2]", [[336]], 5])
def test_resolutions_that_are_no_pairs_are_refused(pinpoints):
    settings = SimpleNamespace(image_aspect_ratio="anyres", image_grid_pinpoints=pinpoints)
    with pytest.raises(ValueError, match="image_grid_pinpoints must be a list of"):
        process_images([Image.new("RGB", (9, 9))], ImageProcessor(), settings)


def test_mistakes_are_told_apart():
    with pytest.raises(ValueError, match="image_aspect_ratio must be .*, got 'anyres_max_9'"):
        process_images([Image.new("RGB", (3, 3))], ImageProcessor(), config("anyres_max_9"))
    with pytest.raises(ValueError, match="at least one image"):
        process_images([], ImageProcessor(), config("pad"))
    with pytest.raises(ImageError, match="image 1 has no pixels: its size is 0 x 4"):
        process_images(
            [Image.new("RGB", (3, 3)), Image.new("RGB", (0, 4))], ImageProcessor(), config("pad")
        )
    with pytest.raises(ImageError, match="image 0 must be a PIL image, got str"):
        process_images(["dog.png"], ImageProcessor(), config("pad"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I", "F", "I;16"])
@pytest.mark.parametrize("ratio", ["pad", "anyres", "square"])
def test_images_of_any_mode_are_treated_as_their_rgb(mode, ratio):
    image = Image.new(mode, (60, 40))
    ours = process_images([image], ImageProcessor(), config(ratio))
    rgb = process_images([image.convert("RGB")], ImageProcessor(), config(ratio))
    assert torch.equal(ours, rgb)


@pytest.mark.parametrize("size", [(61, 7), (7, 61), (60, 60), (1, 64), (59, 58)])
@pytest.mark.parametrize("resample", [0, 1, 2, 3, 4, 5])
def test_a_square_in_strips_has_the_pixels_of_the_whole(size, resample):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image, colour = Image.fromarray(pixels), (122, 116, 104)
    whole = expand2square(image, colour).resize((14, 14), resample)
    for most in (64, 1000, 1 << 26):
        parts = resized_square(image, colour, 14, resample, most).resize((14, 14), resample)
        assert np.array_equal(np.asarray(parts), np.asarray(whole))


@pytest.mark.parametrize("fit", ["shortest_edge", "exact"])
def test_padded_tiles_are_those_of_the_whole_square(fit, monkeypatch):
    monkeypatch.setattr(squares, "MOST_PIXELS", 1000)
    processor = ImageProcessor(side=28, fit=fit, resize_to=32 if fit == "shortest_edge" else None)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 31, 3), dtype=np.uint8))
    whole = processor.tile(expand2square(image, processor.background))
    assert torch.equal(process_images([image], processor, config("pad"))[0], whole)


@pytest.mark.parametrize("ratio", ["pad", "square", None])
@pytest.mark.parametrize("size", [(1, 40000), (40000, 1)])
def test_an_image_that_would_fill_the_memory_is_an_error(ratio, size):
    with pytest.raises(ImageError, match=f"size is {size[0]} x {size[1]}"):
        process_images([Image.new("RGB", size)], ImageProcessor(), config(ratio))
    assert process_images([Image.new("RGB", size)], ImageProcessor(), config("anyres")) is not None
