"""Ask a selector which visual tokens of each image to keep."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llava.model.visual_tokens import ImageTokens
from llava.pruning.settings import Stage
from otprune import Signals


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tokens of one image that are still there.

    Attributes:
        image: what the image started with.
        alive: their numbers among the image's tokens before any pruning; on the CPU.
        tokens: their vectors where the selection happens, [m d].
        image_id: names the image for seeded methods.
        text: vectors of the question's tokens in the same place, [t d].
    """

    image: ImageTokens
    alive: Int64[Tensor, " m"]
    tokens: Float[Tensor, "m d"]
    image_id: int | None = None
    text: Float[Tensor, "t d"] | None = None

    def signals(self, among: Int64[Tensor, " c"]) -> Signals:
        """Return what is known about the tokens ``among`` (numbers into ``alive``)."""
        numbers = self.alive[among]
        whole = len(numbers) == len(self.image)
        attention, keys = self.image.cls_attention, self.image.encoder_keys
        device = self.tokens.device
        return Signals(
            grid=self.image.grid if whole else None,
            image_id=self.image_id,
            cls_attention=None
            if attention is None
            else attention.to(device)[:, numbers.to(device)],
            encoder_keys=None if keys is None else keys.to(device)[numbers.to(device)],
            text_embeddings=self.text,
        )


def choose(
    stage: Stage, images: Sequence[Candidates], keep_newlines: bool
) -> list[Int64[Tensor, " k"]]:
    """Return for each image which of its tokens stay, as numbers into ``alive``, on the CPU.

    All images go to the selector in one call. The order is the selector's; with newline tokens kept
    beside the budget it is ascending.
    """
    among = [_candidates(one, keep_newlines) for one in images]
    budgets = []
    for one, candidates in zip(images, among, strict=True):
        forced = len(one.alive) - len(candidates)
        n = len(one.image)
        if forced:
            n -= int(one.image.newline.sum())  # type: ignore[union-attr]
        budgets.append(stage.budget(n, len(candidates)))
    vectors = [
        one.tokens
        if len(candidates) == len(one.alive)
        else one.tokens[candidates.to(one.tokens.device)]
        for one, candidates in zip(images, among, strict=True)
    ]
    picked = stage.selector.select_batch(
        vectors,
        k=budgets,
        signals=[one.signals(c) for one, c in zip(images, among, strict=True)],
    )
    return [
        _with_newlines(one, candidates, kept.cpu())
        for one, candidates, kept in zip(images, among, picked, strict=True)
    ]


def _candidates(one: Candidates, keep_newlines: bool) -> Tensor:
    everything = torch.arange(len(one.alive))
    if not keep_newlines or one.image.newline is None:
        return everything
    return everything[~one.image.newline[one.alive]]


def _with_newlines(one: Candidates, candidates: Tensor, kept: Tensor) -> Tensor:
    if len(candidates) == len(one.alive):
        return kept
    stays = torch.ones(len(one.alive), dtype=torch.bool)
    stays[candidates] = False
    stays[candidates[kept]] = True
    return stays.nonzero()[:, 0]
