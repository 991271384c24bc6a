"""Choose or merge the visual tokens of each image before the language model sees them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llava.model.decoder import decoder_shape
from llava.model.multimodal_encoder.tower import TOWER_SIGNALS, VisionTower
from otprune import Merger, Selector, Signals
from otprune.pruning.choose import Candidates, choose, merge
from otprune.pruning.image_tokens import ImageTokens
from otprune.pruning.settings import Pruning


def check_pruning(pruning: Pruning, config: Any, tower: VisionTower, tools: Any) -> None:
    """Raise ``ValueError`` if a pruning cannot be carried out; see `LlavaMetaForCausalLM`."""
    shape = decoder_shape(config)
    named = {stage.layer for stage in pruning.stages}
    if pruning.pruner is not None:
        named |= {point.layer for point in pruning.pruner.points} | pruning.pruner.observes
    if max(named) >= shape.layers:
        raise ValueError(
            f"layer must be in 0..{shape.layers - 1} for a model of {shape.layers} layers, "
            f"got {max(named)}"
        )
    pruning.plan(tower.num_patches, shape)
    tower.check_signals(pruning.needs & TOWER_SIGNALS)
    if tools is not None:
        tools.check(pruning.needs, tower)


def budgets_of(
    pruning: Pruning, visual: Sequence[ImageTokens], config: Any
) -> list[dict[int, int]]:
    """Return for each image how many tokens are left from which layers on.

    Newline tokens that are kept beside the budget are no part of it.
    """
    shape = decoder_shape(config)
    budgets = []
    for image in visual:
        n = len(image)
        if pruning.keep_newlines and image.newline is not None:
            n -= int(image.newline.sum())
        budgets.append(pruning.plan(n, shape))
    return budgets


def choose_before(
    pruning: Pruning,
    visual: Sequence[ImageTokens],
    known: Sequence[Signals],
    budgets: Sequence[dict[int, int]],
    project: Callable[[Tensor], Tensor],
) -> tuple[list[Float[Tensor, "k d"]], list[Int64[Tensor, " k"]]]:
    """Return the tokens of each image that enter the language model, and their numbers.

    Args:
        pruning: what to do; something is done before the language model.
        visual: tokens of each image.
        known: signals of each image, and about its question.
        budgets: see `budgets_of`.
        project: the projector.
    """
    method = pruning.before
    candidates = [
        Candidates(
            image, torch.arange(len(image)), image.tokens, budget.get(0, len(image)), signals
        )
        for image, signals, budget in zip(visual, known, budgets, strict=True)
    ]
    if isinstance(method, Merger):
        made = [merge(method, one, project, pruning.keep_newlines) for one in candidates]
        return [tokens for tokens, _ in made], [places for _, places in made]
    if not isinstance(method, Selector):
        raise ValueError(f"{pruning!r} has nothing that prunes before the language model")
    kept = choose(method, candidates, pruning.keep_newlines)
    tokens = [
        image.tokens[keep.to(image.tokens.device)] for image, keep in zip(visual, kept, strict=True)
    ]
    return tokens, kept
