"""A picture of which patches each method keeps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from llava.chat import make_prompt
from llava.images import as_rgb, process_images
from llava.mm_utils import tokenizer_image_token
from otprune.pruning import Trace
from otprune_lmms.engine import Request
from otprune_lmms.engine.identity import image_hash, image_number
from otprune_lmms.files import whole
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.figures.overlay import fade, outline
from otprune_lmms.reporting.figures.style import look, styled
from otprune_lmms.reporting.figures.write import render

_MANY = 9
"""So many pictures stand in more columns."""

_LONG = 26
"""Letters that fit above a picture."""


def cells_to_show(configs: Sequence[PruningConfig]) -> list[PruningConfig]:
    """Return one config of each method, that of the smallest keep ratio.

    Before the language model, or by a schedule; a schedule without a budget where there is none
    with a keep ratio.
    """
    shown: dict[str, PruningConfig] = {}
    for config in configs:
        scheduled = config.keep_ratio is None and config.k is None
        if config.method is None or config.layer or (config.keep_ratio is None and not scheduled):
            continue
        best = shown.get(config.method)
        if best is None or (config.keep_ratio or 2.0) < (best.keep_ratio or 2.0):
            shown[config.method] = config
    return list(shown.values())


@torch.inference_mode()
def kept_patches(
    loaded: tuple[Any, Any, Any, int],
    image: Image.Image,
    context: str,
    configs: Sequence[PruningConfig],
) -> tuple[np.ndarray, tuple[int, int], dict[str, np.ndarray]]:
    """Return what the model sees of an image, its grid, and the kept patches by config label.

    Args:
        loaded: what `load_pretrained_model` returns.
        image: the picture.
        context: what is asked about it.
        configs: settings. Of several prunings the last one counts; of a merger the patches in whose
            places its tokens stand.

    Returns:
        Pixels [h w 3] in [0, 1]; rows and columns of patches; kept patches [rows columns] as bool.

    Raises:
        ValueError: the image's tokens are no single raster of patches (several tiles).
    """
    tokenizer, model, processor, _ = loaded
    rgb = as_rgb(image)
    pixels = process_images([rgb], processor, model.config)
    prunings = {config.label: config.pruning for config in configs}
    needs = frozenset().union(*(one.needs for one in prunings.values() if one is not None))
    visual = model.encode_visual(pixels, [rgb.size], needs)
    grid = visual[0].grid
    if grid is None or pixels[0].ndim != 3:
        raise ValueError("a picture of kept patches needs an image of a single tile")
    ids = tokenizer_image_token(make_prompt(context, 1), tokenizer, return_tensors="pt")
    kept = {}
    for label, pruning in prunings.items():
        trace = Trace()
        model.generate(
            ids[None].to(model.device),  # type: ignore[union-attr]
            visual=visual,
            image_ids=[image_number(image_hash(rgb))],
            pruning=pruning,
            trace=trace,
            max_new_tokens=1,
            do_sample=False,
        )
        kept[label] = patches(trace, grid)
    mean = np.array(processor.image_mean)[:, None, None]
    std = np.array(processor.image_std)[:, None, None]
    seen = pixels[0].float().cpu().numpy() * std + mean
    return seen.transpose(1, 2, 0).clip(0, 1), grid, kept


def patches(trace: Trace, grid: tuple[int, int]) -> np.ndarray:
    """Return the patches of a call's first image that are left at the end, [rows columns].

    A merged token that stands for no single patch has none.
    """
    size = grid[0] * grid[1]
    mask = np.full(size, not trace.kept)
    if trace.kept:
        left = trace.kept[max(trace.kept)][0].numpy()
        mask[left[(left >= 0) & (left < size)]] = True
    return mask.reshape(grid)


def titles(configs: Sequence[PruningConfig]) -> list[str]:
    """Return what configs of different methods are called: labels, or if one is long the names."""
    if all(len(config.label) <= _LONG for config in configs):
        return [config.label for config in configs]
    names = []
    for config in configs:
        budget = "" if config.k is None else f" k = {config.k}"
        budget = budget if config.keep_ratio is None else f" {config.keep_ratio:g}"
        names.append(look(config.method).name + budget)
    return names


def draw(
    loaded: tuple[Any, Any, Any, int],
    request: Request,
    configs: Sequence[PruningConfig],
    path: Path,
) -> None:
    """Write a PNG: the image of a request, and what each config keeps of it.

    Raises:
        ValueError: see `kept_patches`; no configs; a request without an image.
        OutputError: the picture cannot be written.
    """
    images = request.images()
    if not images or not configs:
        raise ValueError("a picture of kept patches needs an image and a pruning method")
    seen, _, kept = kept_patches(loaded, images[0], request.context, configs)
    columns = min(len(kept) + 1, 3 if len(kept) < _MANY else 6)
    rows = -(-(len(kept) + 1) // columns)
    with styled():
        figure = Figure(figsize=(2.2 * columns, 2.4 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for place in axes:
            place.set_axis_off()
        axes[0].imshow(seen)
        axes[0].set_title("as the model sees it", fontweight="normal")
        for place, config, name in zip(axes[1:], configs, titles(configs), strict=False):
            mask, colour = kept[config.label], look(config.method).colour
            place.imshow(fade(seen, mask))
            outline(place, mask, (seen.shape[0], seen.shape[1]), colour)
            place.set_title(name, color=colour)
        drawn = render(figure, "png")
    with whole(path) as place:
        place.write_bytes(drawn)
