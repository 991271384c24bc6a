"""CDPruner: greedy MAP of a DPP conditioned on how relevant tokens are (arXiv 2506.10967)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from otprune.checks import check_choice
from otprune.compiled import loops_for
from otprune.greedy.conditional import conditional_device, conditional_loop
from otprune.greedy.conditional_gains import SPENT, Gains
from otprune.greedy.padded_kernels import padded_units, together_at_once
from otprune.greedy.programs import go_together, in_parts
from otprune.kernels import any_entry, symmetric_product, unit_rows
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.tiles import patches, pick_by_tiles
from otprune.types import PickOrder, VisualTokens

_NEEDS = {
    "clip": frozenset({"clip_patches", "clip_text"}),
    "llm": frozenset({"text_embeddings"}),
    "none": frozenset[str](),
}

_FULL_UP_TO = 4096
"""Tokens up to which all cosines are held at once; beyond, they are computed row by row."""


@dataclass(frozen=True, slots=True)
class CDPruner(Selector):
    """Greedy maximiser of det K_C, K = diag(r) S diag(r): r relevance to the question, S cosines.

    Source: arXiv 2506.10967 (NeurIPS 2025), sec. 3, and its released code. S are the cosines
    between projected tokens. r is scaled to 1e-6..1 over all tiles of an image together; then each
    tile is ranked separately, with the budget divided as evenly as the tiles' sizes allow. Ties go
    to the lower position.

    - Relevance is *minus* the cosine between patch and question in CLIP's common space, averaged
      over the question's segments. The sign is the code's: in CLIP, patches that show what a text
      names are less similar to it than others.
    - ``relevance="llm"`` is ours, for vision encoders without a text encoder: the cosine between
      projected token and embedding of the question's tokens, averaged over these, without the minus
      sign, since no such inversion is known there.
    - The balance θ, exp(θr / (2 - 2θ)) in place of r, is commented out in the code, left out here.
    - Once the picks of a tile span its tokens (after at most as many picks as channels), every
      further determinant is zero. The code then takes roots of negative numbers and keeps positions
      twice; here the remaining tokens follow by relevance. Relevance that is the same for all
      tokens (0/0 in the code) counts as 1.
    - A question without text, that is without a row of ``clip_text`` or ``text_embeddings``, makes
      no token more relevant than another: a plain DPP.
    - Newline tokens, which the code never has, come last.

    Cost O(n²d / 2 + nk²) for the tokens and the budget of a tile, memory O(n² + nk); above 4096
    tokens O(nk(d + k)) and O(n(d + k)).

    Attributes:
        relevance: "clip" (the paper's), "llm", or "none": every token 1, a plain DPP.
    """

    presets: ClassVar = {"plain": {"relevance": "none"}}
    by_tile = True

    relevance: Literal["clip", "llm", "none"] = "clip"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("relevance", self.relevance, tuple(_NEEDS))

    @property
    # A property where the class attribute of `Method` is a constant: it depends on a setting.
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Signals that this kind of relevance is computed from."""
        return _NEEDS[self.relevance]

    def _rank_images(
        self, tokens: list[Tensor], k: list[int], signals: list[Signals]
    ) -> list[Tensor]:
        one_tile = all(one.tiles is None for one in signals)
        if not one_tile or not go_together(tokens, torch.float32):
            return super(CDPruner, self)._rank_images(tokens, k, signals)
        found = []
        for part in in_parts(len(tokens), together_at_once(tokens, torch.float32)):
            units = padded_units(tokens[part], torch.float32)
            several = zip(units, tokens[part], signals[part], strict=True)
            relevance = [self._relevance(one[: len(image)], of) for one, image, of in several]
            found += conditional_together(units, relevance, k[part])
        return found

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        units = unit_rows(tokens.float())
        relevance = self._relevance(units, signals)

        def pick(group: Tensor, count: int) -> Tensor:
            if len(group) == len(units):
                # All tokens, in order: a copy would cost as much as all picks.
                return conditional_picks(units, relevance, count)
            return conditional_picks(units[group], relevance[group], count)

        return pick_by_tiles(signals, len(tokens), k, pick, tokens.device)

    def _relevance(self, units: Tensor, signals: Signals) -> Float[Tensor, " n"]:
        """Return the relevance of each token, scaled over all tokens but newline tokens."""
        if self.relevance == "clip":
            names = ("clip_patches", "clip_text")
            raw = -_mean_cosine(signals.clip_patches, signals.clip_text, names)
        elif self.relevance == "llm":
            raw = _mean_cosine(units, signals.text_embeddings, ("tokens", "text_embeddings"))
        else:
            return torch.ones_like(units[:, 0])
        return scaled_relevance(raw, patches(signals, len(units)).to(raw.device)).to(units.device)


def scaled_relevance(raw: Float[Tensor, " n"], among: Tensor) -> Float[Tensor, " n"]:
    """Return (r - min + 1e-6) / (max - min), extremes over ``among``; 1 where all are equal."""
    if len(among) == 0:
        return torch.ones_like(raw)
    low, high = raw[among].aminmax()
    return torch.where(high > low, (raw - low + 1e-6) / (high - low), torch.ones_like(raw))


def _mean_cosine(
    tokens: Tensor | None, texts: Tensor | None, names: tuple[str, str]
) -> Float[Tensor, " n"]:
    """Return each token's cosine to the texts, averaged over these; 0 without texts."""
    if tokens is None or texts is None or texts.ndim != 2:
        shape = None if texts is None else tuple(texts.shape)
        raise ValueError(f"{names[1]} must be a matrix, got shape {shape}")
    if texts.shape[1] != tokens.shape[1]:
        raise ValueError(
            f"{names[1]} must have the {tokens.shape[1]} channels of {names[0]}, "
            f"got {texts.shape[1]}"
        )
    if len(texts) == 0:
        return torch.zeros_like(tokens[:, 0], dtype=torch.float32)
    mean = unit_rows(texts.float().to(tokens.device)).mean(0)
    return unit_rows(tokens.float()) @ mean


def conditional_picks(
    units: Float[Tensor, "n d"], relevance: Float[Tensor, " n"], k: int
) -> PickOrder:
    """Return k greedy picks for K = diag(relevance) S diag(relevance), S of unit-norm tokens.

    The conditional variance of a token under K is relevance² times that under S, so the Cholesky
    factor is kept for S: rounding is then in proportion to a token's own variance, however small
    its relevance.
    """
    similarity = symmetric_product(units, units) if len(units) <= _FULL_UP_TO else None
    gains = gains_of(units, relevance)
    if similarity is None:
        return conditional_loop(lambda j: units @ units[j][0], gains, k)
    loops = loops_for(similarity)
    if loops is not None:
        return loops.conditional_picks(
            similarity, gains.weight, gains.spent, SPENT, gains.variance, k
        )
    batch = Gains(*(one[None] for one in gains))
    return conditional_device(similarity[None], batch, [k])[0]


def gains_of(units: Float[Tensor, "n d"], relevance: Float[Tensor, " n"]) -> Gains:
    """Return what decides between unit-norm tokens of some relevance."""
    # Those of spanned tokens: below every gain, and larger for more relevant tokens.
    spent = relevance - relevance.max() - 1
    return Gains(any_entry(units), relevance.square(), spent)


def conditional_together(
    units: Float[Tensor, "b n d"], relevance: list[Tensor], k: list[int]
) -> list[Tensor]:
    """Return the picks of padded images of unit-norm tokens, as `conditional_picks`; for GPUs."""
    several = zip(units, relevance, strict=True)
    found = [gains_of(one[: len(of)], of) for one, of in several]
    # Padding has a variance of 0, and is never picked.
    gains = Gains(
        pad_sequence([one.variance for one in found], batch_first=True),
        pad_sequence([one.weight for one in found], batch_first=True),
        pad_sequence([one.spent for one in found], batch_first=True, padding_value=float("-inf")),
    )
    return conditional_device(torch.bmm(units, units.mT), gains, k)
