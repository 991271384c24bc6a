"""What several methods keep of one image, in numbers and as a picture."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from llava.images import as_rgb
from otprune_lmms.engine.identity import image_hash, image_number
from otprune_lmms.engine.visual import encode, preprocess
from otprune_lmms.experiments.diagnostics.diagnose import Prober, obstacle
from otprune_lmms.experiments.diagnostics.views import View, views_of
from otprune_lmms.files import whole
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.figures.overlay import fade, outline
from otprune_lmms.reporting.figures.style import look, styled

_COLUMNS = 4
_COLOURS = 255


@dataclass(frozen=True)
class Kept:
    """What configs keep of one image.

    Attributes:
        views: what the model sees of it.
        rows: one for each config: ``config``, ``method``, ``kept``, ``n``, ``seconds`` and the
            quantities of `store.QUANTITIES`.
    """

    views: Sequence[View]
    rows: Sequence[Mapping[str, Any]]


@torch.inference_mode()
def keep_of_image(
    loaded: tuple[Any, Any, Any, int],
    image: Image.Image,
    configs: Sequence[PruningConfig],
    *,
    exact: bool = True,
) -> Kept:
    """Return what each config keeps of an image, and how far that is from all of it.

    No question is needed: the configs prune before the language model, by the image alone.

    Args:
        loaded: what `load_pretrained_model` returns.
        image: the picture.
        configs: settings.
        exact: whether to solve the exact transport problem, which needs POT.

    Raises:
        ValueError: no config, or one whose selection an image alone does not decide.
        ImageError: no usable image.
    """
    if not configs:
        raise ValueError("pruning must hold at least one that prunes, got none")
    for config in configs:
        reason = "it prunes nothing" if config.method is None else obstacle(config)
        if reason is not None:
            raise ValueError(f"an image alone does not decide what {config.label} keeps: {reason}")
    _, model, processor, _ = loaded
    rgb = as_rgb(image)
    prober = Prober(model, configs, exact)
    pixels = preprocess(rgb, processor, model.config, None)
    (tokens,) = encode(model, [pixels], prober.signals)
    rows = prober.probe(tokens, image_number(image_hash(rgb)))
    return Kept(views_of(model, processor, pixels.values, rgb.size), rows)


def draw(kept: Kept, path: Path) -> None:
    """Write a PNG: the image, and for each config the patches that it keeps in colour and outlined.

    Raises:
        OutputError: the file cannot be written.
    """
    picture = _picture(kept)
    with whole(path) as place:
        picture.save(place, format="PNG", optimize=True)


def _picture(kept: Kept) -> Image.Image:
    panels = [(view, None) for view in kept.views]
    panels += [(view, row) for row in kept.rows for view in kept.views]
    columns = len(kept.views) * max(1, _COLUMNS // len(kept.views))
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    with styled():
        figure = Figure(figsize=(2.4 * columns, 2.65 * lines), layout="constrained")
        # Titles of axes that are off do not count in the layout.
        figure.get_layout_engine().set(h_pad=0.12)  # type: ignore[union-attr, call-arg]
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots(lines, columns, squeeze=False).flatten()
        for place in axes:
            place.set_axis_off()
        for place, (view, row) in zip(axes, panels, strict=False):
            _panel(place, view, row)
        drawn = io.BytesIO()
        canvas.print_figure(drawn, format="png", dpi=120)
    # A palette keeps the file small.
    return Image.open(drawn).convert("RGB").quantize(_COLOURS)


def _panel(axes: Any, view: View, row: Mapping[str, Any] | None) -> None:
    if row is None:
        axes.imshow(view.pixels)
        axes.set_title(view.name)
        return
    mask = view.mask(np.asarray(row["kept"]))
    axes.imshow(fade(view.pixels, mask))
    outline(axes, mask, (view.pixels.shape[0], view.pixels.shape[1]), look(row["method"]).colour)
    axes.set_title(f"{row['setting']}\n{len(row['kept'])} of {row['n']} tokens")
