"""Which tokens several pruning configs keep of one image, with their distances."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from otprune_lmms.engine.prepare import image_hash, image_number
from otprune_lmms.experiments.diagnostics.diagnose import KeptTokensMeter, obstacle
from otprune_lmms.images import as_rgb
from otprune_lmms.models.protocol import ImageView, VisionLanguageModel
from otprune_lmms.pruning_config import PruningConfig


@dataclass(frozen=True)
class MeasuredImage:
    """What pruning configs keep of one image.

    Attributes:
        views: the image as the model sees it.
        lines: one for each config: its columns, ``kept``, ``n``, ``seconds`` and the quantities of
            `results.diagnostics.QUANTITIES`.
    """

    views: Sequence[ImageView]
    lines: Sequence[Mapping[str, Any]]


@torch.inference_mode()
def measure_image(
    model: VisionLanguageModel,
    image: Image.Image,
    configs: Sequence[PruningConfig],
    *,
    exact: bool = True,
) -> MeasuredImage:
    """Return what each config keeps of an image, and how far that is from all of it.

    No question is needed: the configs prune before the language model, by the image alone.

    Args:
        model: the model.
        image: the image.
        configs: measurable pruning configs.
        exact: whether to solve the exact transport problem, which needs POT.

    Raises:
        ValueError: no config, or one that is not measurable (`diagnose.obstacle`).
        ImageError: see `as_rgb`.
    """
    if not configs:
        raise ValueError("configs must hold at least one that prunes, got none")
    for config in configs:
        reason = "it prunes nothing" if config.method is None else obstacle(config)
        if reason is not None:
            raise ValueError(f"an image alone does not decide what {config.label} keeps: {reason}")
    rgb = as_rgb(image)
    meter = KeptTokensMeter(model, configs, exact)
    pixels = model.preprocess(rgb)
    (tokens,) = model.encode([pixels], meter.signals)
    lines = meter.measure(tokens, image_number(image_hash(rgb)))
    return MeasuredImage(model.image_views(pixels), lines)
