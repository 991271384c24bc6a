"""Figures of the patches that settings keep of one image, from plain data.

Kept patches are in colour and outlined, dropped ones grey and faded. `write_kept_patches` makes
``kept_patches.png`` of a results folder; `draw_panels` makes the figure of ``otprune prune``.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from otprune_lmms.files import atomic_write
from otprune_lmms.reporting.figures.overlay import fade, outline
from otprune_lmms.reporting.figures.parts import fitted
from otprune_lmms.reporting.figures.style import RC, look, styled
from otprune_lmms.reporting.figures.style import drawn as in_figure
from otprune_lmms.reporting.figures.write import render
from otprune_lmms.results.kept_image import KEPT_PATCHES, read_kept_image
from otprune_lmms.results.manifest import MANIFEST, read_manifest
from otprune_lmms.results.names import Names

_MANY = 9
"""Most panels in 3 columns; more have 6."""

_COLUMNS = 4
_COLOURS = 255


@dataclass(frozen=True)
class Panel:
    """An image, whole or with what a setting keeps of it.

    Attributes:
        pixels: [h w 3] in [0, 1]; h and w are multiples of the mask's.
        title: stands above it.
        mask: kept patches, [rows columns]; None for the whole image.
        method: whose colour the outlines have; None for the whole image.
    """

    pixels: np.ndarray
    title: str
    mask: np.ndarray | None = None
    method: str | None = None


class View(Protocol):
    """What a model sees of an image: the whole of it, or its tiles."""

    @property
    def name(self) -> str:
        """What titles call it."""
        ...

    @property
    def pixels(self) -> np.ndarray:
        """Pixels [h w 3] in [0, 1]."""
        ...

    def mask(self, kept: np.ndarray) -> np.ndarray:
        """Return kept positions as patches of the view, [rows columns] bool."""
        ...


def panels_of(views: Sequence[View], lines: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Return the panels of an image: each view whole, then each setting's kept patches of it.

    Args:
        views: of the image.
        lines: one for each setting, with its columns (`results.columns`), ``kept`` (positions) and
            ``n`` (visual tokens before pruning).
    """
    names = Names(lines)
    panels = [Panel(view.pixels, view.name) for view in views]
    for line in lines:
        title = f"{names.setting(line['setting'])}\n{len(line['kept'])} of {line['n']} tokens"
        kept = np.asarray(line["kept"])
        panels += [Panel(view.pixels, title, view.mask(kept), line["method"]) for view in views]
    return panels


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """Write a PNG of panels, those of one setting beside each other.

    Args:
        panels: at least one; as many of each setting as there are of the whole image.
        path: of the file.

    Raises:
        ValueError: no panels.
        OutputError: the file cannot be written.
    """
    views = sum(panel.mask is None for panel in panels)
    if not views:
        raise ValueError("panels must hold the whole image, got none")
    columns = min(views * max(1, _COLUMNS // views), len(panels))
    with styled():
        # Titles of axes that are off do not count in the layout.
        layout = ConstrainedLayoutEngine(h_pad=0.12)
        figure, axes = _grid(len(panels), columns, (2.4, 2.65), layout)
        methods = _methods(panels)
        for place, panel in zip(axes, panels, strict=False):
            _draw(place, panel, methods)
            place.set_title(_title(panel, 2.4))
        drawn = io.BytesIO()
        FigureCanvasAgg(figure).print_figure(drawn, format="png", dpi=120)
    # A palette keeps the file small.
    picture = Image.open(drawn).convert("RGB").quantize(_COLOURS)
    with atomic_write(path) as place:
        picture.save(place, format="PNG", optimize=True)


def write_kept_patches(folder: Path) -> Path:
    """Write ``kept_patches.png`` of a results folder from its ``kept_patches.npz``; return it.

    Raises:
        ValueError: the folder has no such data, or of another format.
        OutputError: the picture cannot be written.
    """
    image = read_kept_image(folder)
    pixels = image.pixels / 255
    panels = [Panel(pixels, "as the model sees it")]
    panels += [
        Panel(pixels, title, mask, setting["method"])
        for title, mask, setting in zip(
            _titles(folder, image.settings), image.masks, image.settings, strict=True
        )
    ]
    with styled():
        figure, axes = _grid(
            len(panels), 3 if len(panels) <= _MANY else 6, (2.2, 2.4), ConstrainedLayoutEngine()
        )
        methods = _methods(panels)
        for place, panel in zip(axes, panels, strict=False):
            _draw(place, panel, methods)
            if panel.method is None:
                place.set_title(_title(panel, 2.2), fontweight="normal")
            else:
                place.set_title(_title(panel, 2.2), color=look(panel.method, methods).colour)
        drawn = render(figure, "png")
    path = folder / KEPT_PATCHES
    with atomic_write(path) as place:
        place.write_bytes(drawn)
    return path


def _title(panel: Panel, width: float) -> str:
    """Return a panel's title, its lines no wider than so many inches."""
    size = RC["axes.titlesize"]
    return "\n".join(fitted(in_figure(one), width, size, True) for one in panel.title.split("\n"))


def _titles(folder: Path, settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of settings: those of the folder's manifest, if it has one."""
    configs = read_manifest(folder).configs if (folder / MANIFEST).is_file() else ()
    names = Names([*configs, *settings])
    return [names.setting(one["setting"]) for one in settings]


def _grid(
    count: int, columns: int, size: tuple[float, float], layout: ConstrainedLayoutEngine
) -> tuple[Figure, list[Axes]]:
    """Return a figure with places for panels, each of a size (width, height) in inches."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout=layout)
    axes = list(figure.subplots(rows, columns, squeeze=False).flatten())
    for place in axes:
        place.set_axis_off()
    return figure, axes


def _methods(panels: Sequence[Panel]) -> list[str]:
    return [panel.method for panel in panels if panel.method is not None]


def _draw(axes: Axes, panel: Panel, methods: Sequence[str]) -> None:
    if panel.mask is None:
        axes.imshow(panel.pixels)
        return
    shape = (panel.pixels.shape[0], panel.pixels.shape[1])
    axes.imshow(fade(panel.pixels, panel.mask))
    outline(axes, panel.mask, shape, look(panel.method, methods).colour)
