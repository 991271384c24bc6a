"""A picture of which patches each method keeps."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from llava.chat import make_prompt
from llava.images import as_rgb, process_images
from llava.mm_utils import tokenizer_image_token
from llava.pruning import Trace
from otprune_lmms.cells import Cell
from otprune_lmms.engine import Request
from otprune_lmms.engine.identity import image_hash, image_number

DIMMED = 0.22
"""What is left of the brightness of a dropped patch."""

_COLOURS = 128


def cells_to_show(cells: Sequence[Cell]) -> list[Cell]:
    """Return one cell of each method: before the language model, at its smallest keep ratio."""
    shown: dict[str, Cell] = {}
    for cell in cells:
        if cell.method is None or cell.keep_ratio is None or cell.layer:
            continue
        best = shown.get(cell.method)
        if best is None or cell.keep_ratio < (best.keep_ratio or 1):
            shown[cell.method] = cell
    return list(shown.values())


@torch.inference_mode()
def kept_patches(
    loaded: tuple[Any, Any, Any, int], image: Image.Image, context: str, cells: Sequence[Cell]
) -> tuple[np.ndarray, tuple[int, int], dict[str, np.ndarray]]:
    """Return what the model sees of an image, its grid, and the kept patches by cell label.

    Args:
        loaded: what `load_pretrained_model` returns.
        image: the picture.
        context: what is asked about it.
        cells: at layer 0.

    Returns:
        Pixels [h w 3] in [0, 1]; rows and columns of patches; kept patches [rows columns] as bool.

    Raises:
        ValueError: the image's tokens are no single raster of patches (several tiles).
    """
    tokenizer, model, processor, _ = loaded
    rgb = as_rgb(image)
    pixels = process_images([rgb], processor, model.config)
    visual = model.encode_visual(pixels, [rgb.size])
    grid = visual[0].grid
    if grid is None or pixels[0].ndim != 3:
        raise ValueError("a picture of kept patches needs an image of a single tile")
    ids = tokenizer_image_token(make_prompt(context, 1), tokenizer, return_tensors="pt")
    kept = {}
    for cell in cells:
        trace = Trace()
        model.generate(
            ids[None].to(model.device),  # type: ignore[union-attr]
            visual=visual,
            image_ids=[image_number(image_hash(rgb))],
            pruning=cell.pruning(),
            trace=trace,
            max_new_tokens=1,
            do_sample=False,
        )
        mask = np.zeros(grid[0] * grid[1], dtype=bool)
        mask[trace.kept[0][0].numpy()] = True
        kept[cell.label] = mask.reshape(grid)
    mean = np.array(processor.image_mean)[:, None, None]
    std = np.array(processor.image_std)[:, None, None]
    seen = pixels[0].float().cpu().numpy() * std + mean
    return seen.transpose(1, 2, 0).clip(0, 1), grid, kept


def dim(seen: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the image with every dropped patch dimmed.

    Args:
        seen: pixels, [h w 3].
        kept: patches, [rows columns]; the sides of ``seen`` are multiples of them.
    """
    rows, columns = seen.shape[0] // kept.shape[0], seen.shape[1] // kept.shape[1]
    mask = np.kron(kept, np.ones((rows, columns), dtype=bool))
    weight = np.where(mask, 1.0, DIMMED)[: seen.shape[0], : seen.shape[1], None]
    return seen * weight


def draw(
    loaded: tuple[Any, Any, Any, int], request: Request, cells: Sequence[Cell], path: Path
) -> None:
    """Write a PNG: the image of a request, and what each cell keeps of it.

    Raises:
        ValueError: see `kept_patches`; no cells; a request without an image.
    """
    images = request.images()
    if not images or not cells:
        raise ValueError("a picture of kept patches needs an image and a pruning method")
    seen, _, kept = kept_patches(loaded, images[0], request.context, cells)
    panels = {"as the model sees it": seen}
    panels |= {label: dim(seen, mask) for label, mask in kept.items()}
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.85 * rows), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for place in axes:
        place.set_axis_off()
    for place, (label, panel) in zip(axes, panels.items(), strict=False):
        place.imshow(panel)
        place.set_title(label, fontsize=8)
    drawn = io.BytesIO()
    canvas.print_figure(drawn, format="png", dpi=110)
    # A palette keeps the file small.
    picture = Image.open(drawn).convert("RGB").quantize(_COLOURS)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
