"""The visual tokens that each layer of a prefill processes, and its multiply-adds.

If tokens are dropped once, both follow from the measured numbers of tokens before and after. If a
method drops tokens at several layers, the tokens of every layer follow from its schedule, the
image's number of tokens and the decoder.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import get_args

from otprune.cost import Convention, DecoderShape, prefill_multiply_adds
from otprune_lmms.pruning_config import PruningConfig

CONVENTIONS = get_args(Convention)

LayerTokens = tuple[float, int]
"""(tokens, layers): a number of tokens that a number of layers process."""


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """Numbers of visual tokens of one prompt's images.

    Attributes:
        kept: of each image, after the last pruning.
        visual: of each image, before any pruning.
    """

    kept: tuple[int, ...]
    visual: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prefill:
    """The prefill of a mean prompt.

    Attributes:
        layer_tokens: visual tokens of an image that enter a layer, mean over the layers; None
            without images.
        cached_tokens: text and visual tokens in the key-value cache of a layer, mean over the
            layers.
        multiply_adds: of the prefill, by convention of `otprune.cost`.
    """

    layer_tokens: float | None
    cached_tokens: float
    multiply_adds: dict[str, float]


def mean_prefill(
    config: PruningConfig, shape: DecoderShape, prompts: Sequence[PromptTokens], text: float
) -> Prefill:
    """Return the prefill of the mean of some prompts under a config.

    Args:
        config: the pruning config.
        shape: sizes of the decoder.
        prompts: at least one.
        text: mean text tokens of a prompt, the system's and the template's included.
    """
    scheduled = _by_schedule(config, shape, [one for one in prompts if sum(one.visual)])
    if scheduled is not None:
        tokens, images = scheduled
        segments = [(text + count, 1) for count in tokens]
        mean = math.fsum(tokens) / len(tokens) / images
    else:
        before = min(config.layer, shape.layers)
        kept = math.fsum(sum(one.kept) for one in prompts) / len(prompts)
        visual = math.fsum(sum(one.visual) for one in prompts) / len(prompts)
        segments = [(text + visual, before), (text + kept, shape.layers - before)]
        mean = _over_layers(config, shape, prompts)
    found = {one: multiply_adds(shape, segments, one) for one in CONVENTIONS}
    cached = math.fsum(count * layers for count, layers in segments) / shape.layers
    return Prefill(mean, cached, found)


def multiply_adds(
    shape: DecoderShape, segments: Sequence[LayerTokens], convention: Convention
) -> float:
    """Return the multiply-adds of a prefill.

    Numbers of tokens are means and need not be integers: the cost is interpolated linearly between
    two integers, an error of less than a quarter of one token's attention.
    """

    def whole(count: int, layers: int) -> int:
        # The formula is for all layers; each costs the same.
        return prefill_multiply_adds(shape, count, convention) * layers // shape.layers

    total = 0.0
    for count, layers in segments:
        low, rest = math.floor(count), count - math.floor(count)
        total += (1 - rest) * whole(low, layers) + rest * whole(low + 1, layers)
    return total


def _by_schedule(
    config: PruningConfig, shape: DecoderShape, prompts: Sequence[PromptTokens]
) -> tuple[tuple[float, ...], float] | None:
    """Return a mean prompt's visual tokens at each layer's input, and its mean number of images.

    None for a method without a schedule. An image's end-of-row tokens count like patches.
    """
    pruning = config.pruning
    if pruning is None or pruning.pruner is None or not prompts:
        return None
    plan = cache(lambda n: pruning.tokens_by_layer(n, shape))
    each = [
        [sum(layer) for layer in zip(*(plan(n) for n in one.visual if n), strict=True)]
        for one in prompts
    ]
    tokens = tuple(math.fsum(layer) / len(each) for layer in zip(*each, strict=True))
    return tokens, math.fsum(len(one.visual) for one in prompts) / len(prompts)


def _over_layers(
    config: PruningConfig, shape: DecoderShape, prompts: Sequence[PromptTokens]
) -> float | None:
    """Return an image's tokens at a layer's input, mean over layers, if tokens are dropped once."""
    kept = [count for one in prompts for count in one.kept]
    visual = [count for one in prompts for count in one.visual]
    if not visual:
        return None
    before = min(config.layer, shape.layers)
    left, whole = math.fsum(kept) / len(kept), math.fsum(visual) / len(visual)
    return (before * whole + (shape.layers - before) * left) / shape.layers
