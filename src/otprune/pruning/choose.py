"""Ask a method which visual tokens of each image enter the language model, or go on in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune import Merger, Selector, Signals
from otprune.merger import mixed
from otprune.pruning.image_tokens import ImageTokens


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tokens of one image that are still there.

    Attributes:
        image: what the image started with.
        alive: their numbers among the image's tokens before any pruning; on the CPU.
        tokens: their vectors where the selection happens, [m d].
        budget: how many are to stay, newline tokens counted unless they are kept beside the budget.
        known: signals about all of the image's tokens, and about the question.
    """

    image: ImageTokens
    alive: Int64[Tensor, " m"]
    tokens: Float[Tensor, "m d"]
    budget: int
    known: Signals

    def signals(self, among: Int64[Tensor, " c"]) -> Signals:
        """Return what is known about the tokens ``among`` (numbers into ``alive``)."""
        numbers = self.alive[among]
        known = self.known
        # Not even the order can differ: what is alive is ascending, or merged and nothing known.
        if len(numbers) < len(self.image):
            known = known.take(numbers)
        return known.to(self.tokens.device)


def choose(
    method: Selector, images: Sequence[Candidates], keep_newlines: bool
) -> list[Int64[Tensor, " k"]]:
    """Return for each image which of its tokens stay, as numbers into ``alive``, on the CPU.

    All images go to the selector in one call. The order is the selector's; with newline tokens kept
    beside the budget it is ascending.
    """
    among = [_candidates(one, keep_newlines) for one in images]
    vectors = [
        one.tokens
        if len(candidates) == len(one.alive)
        else one.tokens[candidates.to(one.tokens.device)]
        for one, candidates in zip(images, among, strict=True)
    ]
    picked = method.select_batch(
        vectors,
        k=[min(one.budget, len(c)) for one, c in zip(images, among, strict=True)],
        signals=[one.signals(c) for one, c in zip(images, among, strict=True)],
    )
    return [
        _with_newlines(one, candidates, kept.cpu())
        for one, candidates, kept in zip(images, among, picked, strict=True)
    ]


def merge(
    method: Merger, one: Candidates, project: Callable[[Tensor], Tensor], keep_newlines: bool
) -> tuple[Float[Tensor, "k d"], Int64[Tensor, " k"]]:
    """Return the new tokens of an image, and in whose places they stand.

    Newline tokens kept beside the budget follow the new tokens.

    Args:
        method: the merger.
        one: the image.
        project: the projector, for methods that mix before it.
        keep_newlines: see `Pruning`.
    """
    candidates = _candidates(one, keep_newlines)
    device = one.tokens.device
    tokens = one.tokens[candidates.to(device)]
    signals = one.signals(candidates)
    mixture = method.merge(tokens, min(one.budget, len(candidates)), signals=signals)
    if mixture.tokens is not None:
        new = mixture.tokens
    elif method.space == "tokens":
        new = mixed(mixture, tokens)
    else:
        parts = [signals.features]
        parts += [signals.cls_features] if "cls_features" in method.needs else []
        pool = torch.cat([part for part in parts if part is not None])
        new = project(mixed(mixture, pool))
    places = mixture.places.cpu()
    places = torch.where(places < 0, places, candidates[places.clamp(min=0)])
    if len(candidates) < len(one.alive):
        ends = torch.ones(len(one.alive), dtype=torch.bool)
        ends[candidates] = False
        beside = ends.nonzero()[:, 0]
        new = torch.cat([new.to(device), one.tokens[beside.to(device)]])
        places = torch.cat([places, beside])
    return new.to(device, one.tokens.dtype), places


def _candidates(one: Candidates, keep_newlines: bool) -> Tensor:
    everything = torch.arange(len(one.alive))
    if not keep_newlines or one.image.newline is None:
        return everything
    # A merger's tokens that stand in no one's place are numbered from the image's last on.
    old = one.alive < len(one.image)
    ends = torch.zeros(len(one.alive), dtype=torch.bool)
    ends[old] = one.image.newline[one.alive[old]]
    return everything[~ends]


def _with_newlines(one: Candidates, candidates: Tensor, kept: Tensor) -> Tensor:
    if len(candidates) == len(one.alive):
        return kept
    stays = torch.ones(len(one.alive), dtype=torch.bool)
    stays[candidates] = False
    stays[candidates[kept]] = True
    return stays.nonzero()[:, 0]
