"""Which patches an experiment's pruning configs keep of one image, as data for a figure."""

import logging
from collections.abc import Sequence

import numpy as np
import torch

from otprune.pruning import Trace
from otprune_lmms.engine import Request
from otprune_lmms.engine.prepare import RequestPreparer, image_number
from otprune_lmms.models.protocol import Generation, ImageView, ModelInput, VisionLanguageModel
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.kept_image import KeptImage

logger = logging.getLogger(__name__)


def configs_to_show(configs: Sequence[PruningConfig]) -> list[PruningConfig]:
    """Return one config of each method: that of the smallest keep ratio.

    Only configs that prune before the language model or by a schedule are considered; a schedule
    without a budget is returned if its method has no config with a keep ratio.
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


def first_kept_image(
    model: VisionLanguageModel, requests: Sequence[Request], configs: Sequence[PruningConfig]
) -> KeptImage | None:
    """Return what one config of each method keeps of the first image among some requests.

    None, with a warning in the log, where there is no suitable image or config.
    """
    if not model.selects_here:
        logger.warning("no figure of kept patches: another process selects them, and tells no more")
        return None
    shown = configs_to_show(configs)
    first = next((request for request in requests if request.images()), None)
    if first is None or not shown:
        logger.warning(
            "no figure of kept patches: no image, or no method that prunes before the model"
        )
        return None
    try:
        return kept_image(model, first, shown)
    except ValueError as error:
        logger.warning("no figure of kept patches: %s", error)
        return None


@torch.inference_mode()
def kept_image(
    model: VisionLanguageModel, request: Request, configs: Sequence[PruningConfig]
) -> KeptImage:
    """Return what configs keep of a request's image.

    Of a config that prunes at several layers, the tokens after the last one are shown; of a merger,
    the patches at the positions of its tokens.

    Args:
        model: the model.
        request: a request about one image.
        configs: pruning configs.

    Raises:
        ValueError: the request has no image or several, or the image's tokens are no single raster
            of patches (several tiles).
        DocumentError: the image cannot be read.
    """
    preparer = RequestPreparer(model, "", "first_frame")
    prepared = preparer.prepare(request)
    images = preparer.images(request)
    if len(images) != 1:
        raise ValueError(f"a figure of kept patches needs one image, got {len(images)}")
    pixels = model.preprocess(images[0], prepared.prompt.image_view)
    views = model.image_views(pixels)
    prunings = [config.pruning for config in configs]
    needs = frozenset().union(*(one.needs for one in prunings if one is not None))
    (visual,) = model.encode([pixels], needs)
    if len(views) > 1 or visual.grid is None:
        raise ValueError("a figure of kept patches needs an image of a single tile")
    row = ModelInput(
        model.token_ids(prepared.prompt, [visual]), (visual,), (image_number(prepared.images[0]),)
    )
    masks = []
    for pruning in prunings:
        trace = Trace()
        model.generate([row], pruning, Generation(max_new_tokens=1), trace)
        masks.append(kept_mask(trace, views[0]))
    seen = (255 * views[0].pixels).round().astype(np.uint8)
    return KeptImage(seen, [config.columns() for config in configs], np.stack(masks))


def kept_mask(trace: Trace, view: ImageView) -> np.ndarray:
    """Return which patches of a call's first image are kept at the end, bool [rows columns].

    A merged token without a position of its own has no patch.
    """
    if not trace.kept:
        return view.tokens >= 0
    return view.mask(trace.kept[max(trace.kept)][0].numpy())
