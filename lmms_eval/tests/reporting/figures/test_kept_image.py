"""Drawings of one image and what settings keep of it."""

from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.figures.kept_image import (
    Panel,
    _titles,
    draw_panels,
    panels_of,
    write_kept_patches,
)
from otprune_lmms.reporting.figures.overlay import VEIL
from otprune_lmms.reporting.figures.style import look
from otprune_lmms.results.kept_image import KeptImage, write_kept_image

PIXELS = np.full((40, 40, 3), (0, 60, 200), dtype=np.uint8)


@dataclass
class View:
    name: str
    pixels: np.ndarray
    size: int

    def mask(self, kept):
        return np.isin(np.arange(self.size**2), kept).reshape(self.size, self.size)


def columns(*configs):
    return [config.columns() for config in configs]


def test_drawings_have_the_names_of_their_settings(tmp_path):
    configs = [
        PruningConfig.make("otprune", 0.5),
        PruningConfig.make("tome", k=5),
        PruningConfig.make("sparsevlm", 0.4, schedule="1:0.5/2:0.25"),
        PruningConfig.make("vtw"),
    ]
    assert _titles(tmp_path, columns(*configs)) == [
        "OTPrune 0.5", "ToMe k = 5", "SparseVLM 0.4", "VTW",
    ]  # fmt: skip


def area(picture, colour, near=12):
    """Share of a drawing's pixels that have a colour."""
    pixels = np.asarray(picture.convert("RGB"), int)
    return float((np.abs(pixels - np.array(colour)).max(axis=-1) <= near).mean())


def test_kept_patches_are_in_colour_and_the_others_grey(tmp_path):
    half = np.zeros((4, 4), dtype=bool)
    half[:, :2] = True
    quarter = half & half.T
    image = KeptImage(
        PIXELS,
        columns(PruningConfig.make("otprune", 0.5), PruningConfig.make("divprune", 0.25)),
        np.stack([half, quarter]),
    )
    write_kept_image(image, tmp_path)
    path = write_kept_patches(tmp_path)
    assert path.name == "kept_patches.png"
    grey = 255 * VEIL + (1 - VEIL) * (0.587 * 60 + 0.114 * 200)
    with Image.open(path) as picture:
        coloured, faded = area(picture, (0, 60, 200)), area(picture, (grey, grey, grey))
    # The whole image, a half and a quarter of it in colour; a half and three quarters grey.
    assert coloured / faded == pytest.approx(1.75 / 1.25, rel=0.05)
    for name in ("kept_patches.npz", "kept_patches.png"):
        assert (tmp_path / name).is_file()


def test_a_folder_without_the_data_says_so(tmp_path):
    with pytest.raises(ValueError, match="no kept patches at .*kept_patches.npz"):
        write_kept_patches(tmp_path)
    assert not list(tmp_path.iterdir())


def test_several_methods_from_elsewhere_have_colours_of_their_own(tmp_path):
    settings = [
        PruningConfig.make("otprune", 0.5).columns() | {"method": name, "setting": f"{name}-0.5"}
        for name in ("mine", "yours")
    ]
    mask = np.eye(4, dtype=bool)
    write_kept_image(KeptImage(PIXELS, settings, np.stack([mask, mask])), tmp_path)
    with Image.open(write_kept_patches(tmp_path)) as picture:
        for name in ("mine", "yours"):
            colour = look(name, ["mine", "yours"]).colour
            rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            assert area(picture, rgb, near=30) > 0.0005, name


def test_panels_show_each_view_whole_and_then_each_setting(tmp_path):
    views = [View("whole image", PIXELS / 255, 4), View("tiles", PIXELS / 255, 8)]
    lines = [PruningConfig.make("otprune", 0.5).columns() | {"kept": [0, 5], "n": 64}]
    panels = panels_of(views, lines)
    assert [panel.title for panel in panels] == [
        "whole image", "tiles", "OTPrune 0.5\n2 of 64 tokens", "OTPrune 0.5\n2 of 64 tokens",
    ]  # fmt: skip
    assert [None if p.mask is None else p.mask.shape for p in panels] == [
        None,
        None,
        (4, 4),
        (8, 8),
    ]
    assert [panel.method for panel in panels] == [None, None, "otprune", "otprune"]
    path = tmp_path / "deep" / "kept.png"
    draw_panels(panels, path)
    with Image.open(path) as picture:
        assert picture.width > 900, "the panels of a setting stand beside each other"
    assert [one.name for one in path.parent.iterdir()] == ["kept.png"]
    with pytest.raises(ValueError, match="panels must hold the whole image"):
        draw_panels([Panel(PIXELS / 255, "x", np.eye(4, dtype=bool), "otprune")], path)
