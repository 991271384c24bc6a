"""Apply a selector or merger to the visual tokens of images.

`choose_before` and `budgets_of` are the whole of pruning before the language model; a selector at a
layer inside it is called through `choose`, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.adaptive import AdaptiveSelector, Gains
from otprune.cost import DecoderShape
from otprune.merger import Merger, mixed
from otprune.pruning.image_tokens import ImageTokens
from otprune.pruning.settings import Pruning
from otprune.selector import Selector
from otprune.signals import Signals


@dataclass(frozen=True, slots=True)
class Candidates:
    """The remaining tokens of one image, among which a method chooses.

    Attributes:
        image: the image before any pruning.
        numbers: which of the image's tokens remain, as indices into ``image.tokens``; merged tokens
            have indices beyond it. On the CPU.
        tokens: vectors of the remaining tokens at the layer where the choice is made, [m d].
        budget: how many to keep, newline tokens included unless they are kept beside the budget.
        known: signals about all tokens of the image, and about its question.
    """

    image: ImageTokens
    numbers: Int64[Tensor, " m"]
    tokens: Float[Tensor, "m d"]
    budget: int
    known: Signals

    def signals(self, among: Int64[Tensor, " c"]) -> Signals:
        """Return the signals about some of the tokens, on the tokens' device.

        Args:
            among: indices into ``numbers``.
        """
        numbers = self.numbers[among]
        known = self.known
        # If none is missing they are in order: remaining tokens are ascending, and where there are
        # merged tokens there are no signals about tokens.
        if len(numbers) < len(self.image):
            known = known.take(numbers)
        return known.to(self.tokens.device)


def budgets_of(
    pruning: Pruning, images: Sequence[ImageTokens], shape: DecoderShape
) -> list[dict[int, int]]:
    """Return for each image how many tokens are kept from which layers on.

    Newline tokens that are kept beside the budget are not counted.
    """
    budgets = []
    for image in images:
        n = len(image)
        if pruning.keep_newlines and image.newline is not None:
            n -= int(image.newline.sum())
        budgets.append(pruning.plan(n, shape))
    return budgets


def choose_before(
    pruning: Pruning,
    images: Sequence[ImageTokens],
    known: Sequence[Signals],
    budgets: Sequence[dict[int, int]],
    project: Callable[[Tensor], Tensor],
) -> tuple[list[Float[Tensor, "k d"]], list[Int64[Tensor, " k"]]]:
    """Return the tokens of each image that enter the language model, and their numbers.

    Args:
        pruning: has a stage before the language model.
        images: tokens of each image.
        known: signals of each image, and about its question.
        budgets: see `budgets_of`.
        project: the projector.

    Raises:
        ValueError: the pruning has no stage before the language model.
    """
    method = pruning.before
    candidates = [
        Candidates(
            image, torch.arange(len(image)), image.tokens, budget.get(0, len(image)), signals
        )
        for image, signals, budget in zip(images, known, budgets, strict=True)
    ]
    if isinstance(method, Merger):
        made = [merge(method, one, project, pruning.keep_newlines) for one in candidates]
        return [tokens for tokens, _ in made], [places for _, places in made]
    if not isinstance(method, Selector):
        raise ValueError(f"{pruning!r} has nothing that prunes before the language model")
    kept = choose(method, candidates, pruning.keep_newlines)
    tokens = [
        image.tokens[keep.to(image.tokens.device)] for image, keep in zip(images, kept, strict=True)
    ]
    return tokens, kept


def choose(
    method: Selector, images: Sequence[Candidates], keep_newlines: bool
) -> list[Int64[Tensor, " k"]]:
    """Return for each image which of its candidates are kept, as indices into ``numbers``; CPU.

    All images go to the selector in one call. The order is the selector's; with newline tokens kept
    beside the budget it is ascending.
    """
    among = [_without_kept_newlines(one, keep_newlines) for one in images]
    picked = method.select_batch(**_asked_of(images, among))
    return [
        _with_kept_newlines(one, candidates, kept)
        for one, candidates, kept in zip(images, among, on_cpu(picked), strict=True)
    ]


def gains_of(
    method: AdaptiveSelector, images: Sequence[Candidates], keep_newlines: bool
) -> list[Gains]:
    """Return what each pick adds that `choose` may keep, for thresholds to be chosen."""
    among = [_without_kept_newlines(one, keep_newlines) for one in images]
    return method.gains_batch(**_asked_of(images, among))


def _asked_of(images: Sequence[Candidates], among: Sequence[Tensor]) -> dict[str, Any]:
    """Return the arguments of a selector's call about some of the candidates of each image."""
    pairs = list(zip(images, among, strict=True))
    return {
        "tokens": [
            one.tokens if len(part) == len(one.numbers) else one.tokens[part.to(one.tokens.device)]
            for one, part in pairs
        ],
        "k": [min(one.budget, len(part)) for one, part in pairs],
        "signals": [one.signals(part) for one, part in pairs],
    }


def on_cpu(picked: Sequence[Tensor]) -> list[Tensor]:
    """Return vectors on the CPU; the host waits for a GPU once for all of them."""
    kinds = {(one.device, one.dtype) for one in picked}
    if len(kinds) != 1 or len(picked) == 1:
        return [one.cpu() for one in picked]
    return list(torch.cat(list(picked)).cpu().split([len(one) for one in picked]))


def merge(
    method: Merger, one: Candidates, project: Callable[[Tensor], Tensor], keep_newlines: bool
) -> tuple[Float[Tensor, "k d"], Int64[Tensor, " k"]]:
    """Return the new tokens of an image, and the number of the token whose place each takes.

    The number is -1 where a new token takes no single token's place. Newline tokens that are kept
    beside the budget follow the new tokens.

    Args:
        method: the merger.
        one: the image.
        project: the projector, for methods that mix features before it.
        keep_newlines: see `Pruning`.
    """
    candidates = _without_kept_newlines(one, keep_newlines)
    device = one.tokens.device
    tokens = one.tokens[candidates.to(device)]
    signals = one.signals(candidates)
    mixture = method.merge(tokens, min(one.budget, len(candidates)), signals=signals)
    if mixture.tokens is not None:
        new = mixture.tokens
    elif method.mixes(signals.names) == "tokens":
        new = mixed(mixture, tokens)
    else:
        parts = [signals.features]
        parts += [signals.cls_features] if "cls_features" in method.needs else []
        pool = torch.cat([part for part in parts if part is not None])
        new = project(mixed(mixture, pool))
    places = mixture.places.cpu()
    places = torch.where(places < 0, places, candidates[places.clamp(min=0)])
    if len(candidates) < len(one.numbers):
        is_newline = torch.ones(len(one.numbers), dtype=torch.bool)
        is_newline[candidates] = False
        newlines = is_newline.nonzero()[:, 0]
        new = torch.cat([new.to(device), one.tokens[newlines.to(device)]])
        places = torch.cat([places, newlines])
    return new.to(device, one.tokens.dtype), places


def _without_kept_newlines(one: Candidates, keep_newlines: bool) -> Tensor:
    """Return the indices into ``numbers`` among which the method chooses."""
    everything = torch.arange(len(one.numbers))
    if not keep_newlines or one.image.newline is None:
        return everything
    # Merged tokens without a place of their own have numbers beyond the image's: no newlines.
    original = one.numbers < len(one.image)
    is_newline = torch.zeros(len(one.numbers), dtype=torch.bool)
    is_newline[original] = one.image.newline[one.numbers[original]]
    return everything[~is_newline]


def _with_kept_newlines(one: Candidates, candidates: Tensor, kept: Tensor) -> Tensor:
    """Return the method's choice ``kept`` among ``candidates``, newlines kept beside it added."""
    if len(candidates) == len(one.numbers):
        return kept
    is_kept = torch.ones(len(one.numbers), dtype=torch.bool)
    is_kept[candidates] = False
    is_kept[candidates[kept]] = True
    return is_kept.nonzero()[:, 0]
