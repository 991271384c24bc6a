"""The selection of TOPS, and its stage before the language model (arXiv 2606.27161)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from otprune.checks import check_choice
from otprune.kernels import symmetric_product, unit_rows
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens

Normalise = Literal["mean", "minmax"]
NORMALISATIONS = ("mean", "minmax")


@dataclass(frozen=True, slots=True)
class TOPSStage(Selector):
    """Stage I of TOPS: relevance from the CLS token, coverage and diversity from the tokens.

    Source: arXiv 2606.27161, Algorithm 1; no released code. `token_set` is the selection. Which
    layer and heads the attention comes from is not stated: here the block whose output the
    projector takes, mean or largest over heads.

    All tokens of an image are candidates at once, also those of several tiles. Cost O(n²) a pick.

    Attributes:
        alpha: weight of diversity.
        lam: weight of coverage.
        normalise: "mean" (Algorithms 1 and 2) or "minmax" (Eq. 6).
        heads: "mean" or "max" over the heads of the CLS attention.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"cls_attention"})

    alpha: float = 0.5
    lam: float = 0.5
    normalise: Normalise = "mean"
    heads: Literal["mean", "max"] = "mean"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_weight("alpha", self.alpha)
        check_weight("lam", self.lam)
        check_choice("normalise", self.normalise, NORMALISATIONS)
        check_choice("heads", self.heads, ("mean", "max"))

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        attention = signals.cls_attention
        if attention is None:
            raise ValueError("TOPSStage needs signals.cls_attention")
        attention = attention.to(tokens.device, torch.float32)
        relevance = attention.mean(0) if self.heads == "mean" else attention.amax(0)
        return token_set(tokens, relevance, k, self.alpha, self.lam, self.normalise)


def token_set(
    tokens: Float[Tensor, "n d"],
    relevance: Float[Tensor, " n"],
    k: int,
    alpha: float,
    lam: float,
    normalise: Normalise,
) -> PickOrder:
    """Return the first ``k`` picks of TOPS' greedy selection.

    The first is the most relevant token. Each next has the highest sum of normalised relevance,
    ``alpha`` times normalised diversity, 1 - its largest cosine to a pick, and ``lam`` times
    normalised coverage: the sum over all tokens j left, itself included, of what its cosine to j
    exceeds that of the picks. Normalised is over the candidates left, at every pick: divided by the
    mean, or brought to 0..1; a criterion that is the same for all counts 0 under "minmax", one that
    is 0 for all counts 0 under both. Ties go to the lower index. Cosines are float32.
    """
    units = unit_rows(tokens.float())
    cosines = symmetric_product(units, units)
    relevance = relevance.float()
    order = torch.empty(k, dtype=torch.long, device=tokens.device)
    order[:1] = relevance.argmax(0, keepdim=True)
    best = torch.full_like(relevance, -torch.inf)
    free = torch.ones_like(relevance, dtype=torch.bool)
    for t in range(1, k):
        last = order[t - 1]
        best = torch.maximum(best, cosines[last])
        free[last] = False
        score = normalised(relevance, free, normalise)
        if alpha:
            score = score + alpha * normalised((1 - best).clamp(min=0), free, normalise)
        if lam:
            # A pick is no longer to be covered: nothing exceeds infinity.
            covered = best.masked_fill(~free, torch.inf)
            gains = (cosines - covered).clamp_(min=0).sum(1)
            score = score + lam * normalised(gains, free, normalise)
        order[t] = score.masked_fill(~free, -torch.inf).argmax()
    return order


def normalised(values: Tensor, free: Tensor, how: Normalise) -> Tensor:
    """Return values normalised over the free ones, which are at least one and not negative."""
    count = free.sum()
    if how == "mean":
        mean = values.masked_fill(~free, 0).sum() / count
        return torch.where(mean > 0, values / mean, torch.zeros_like(values))
    low = values.masked_fill(~free, torch.inf).amin()
    span = values.masked_fill(~free, -torch.inf).amax() - low
    return torch.where(span > 0, (values - low) / span, torch.zeros_like(values))


def check_weight(argument: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number of at least 0."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else -1
    if not 0 <= number < torch.inf:
        raise ValueError(f"{argument} must be a finite number >= 0, got {value!r}")
