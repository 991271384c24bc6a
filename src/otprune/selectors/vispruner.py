"""VisPruner: attended tokens, and others after near-duplicates are removed (arXiv 2412.01818)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from otprune.kernels import symmetric_product, unit_rows
from otprune.selector import Selector
from otprune.selectors.fastervlm import mean_attention
from otprune.signals import Signals
from otprune.tiles import pick_by_tiles
from otprune.types import PickOrder, VisualTokens

_DROPPED_AT_ONCE = 8
"""Most tokens that one round of duplicate removal drops, as in the released code."""


@dataclass(frozen=True, slots=True)
class VisPruner(Selector):
    """The most attended tokens, and of the others those that are least alike.

    Source: arXiv 2412.01818 (ICCV 2025). Of k tokens, int(k r) are those with the highest
    CLS attention, mean over heads, in the block whose output the projector takes. The others form a
    list, highest attention first. In each round the list is split into its even and odd places;
    each token at an even place is scored by its largest cosine to one at an odd place, and the (at
    most) 8 with the highest scores are dropped. The other tokens at even places, highest score
    first, followed by those at odd places, are the next round's list. Cosines are of the features
    that the projector takes. An image in several tiles is ranked tile by tile, with the budget
    divided as evenly as possible.

    Differs from the released code, which fails where a list has odd length, or where more tokens
    are to be dropped than there are even places. Here there is then one more even place than odd
    ones, and a round drops at most all of them. Scores are float64. Two near-equal scores that swap
    places change every later split: the released code in float32 and the same procedure in float64
    differ in a fifth to a half of the kept tokens on about half of all inputs. Here ties go by
    index, so that the result does not depend on the sorting algorithm.

    Without a CLS token the attention is that which each token receives from all patches, and
    cosines are of the tokens: so the author for Qwen2.5-VL, in issue 1 of the code's repository.

    Budgets are not nested. Cost O(n²c) for cosines of c channels and O(n²) a round, (n - k) / 8
    rounds; memory O(n²) in float64. Of equal scores the lower index stays.

    Attributes:
        important_ratio: r, the share of the budget that goes to the most attended tokens.
    """

    needs = frozenset({"cls_attention", "features"})
    by_tile = True
    needs_without_cls = frozenset({"received_attention"})
    # The settings on the authors' page; the first is the default.
    presets: ClassVar = {
        "128_tokens": {"important_ratio": 0.5},
        "64_tokens": {"important_ratio": 0.75},
        "160_tokens_of_5_tiles": {"important_ratio": 0.5},
    }

    important_ratio: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings."""
        ratio = self.important_ratio
        number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
        if not number or not 0 <= ratio <= 1:
            raise ValueError(f"important_ratio must lie in 0..1, got {ratio!r}")

    @property
    def nested(self) -> bool:
        """No: each budget starts from a different list."""
        return False

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        attention = mean_attention(signals).to(tokens.device)
        features = tokens if signals.cls_attention is None else signals.given("features")

        def pick(index: Tensor, count: int) -> Tensor:
            order = attention[index].argsort(descending=True, stable=True)
            important = int(count * self.important_ratio)
            units = unit_rows(features.to(tokens.device)[index].double())
            similarity = symmetric_product(units, units)
            rest = without_duplicates(order[important:], count - important, similarity)
            return torch.cat([order[:important], rest])

        return pick_by_tiles(signals, len(tokens), k, pick, tokens.device)


def without_duplicates(residual: Tensor, target: int, similarity: Tensor) -> Tensor:
    """Return the ``target`` tokens that remain of an ordered list; see `VisPruner`."""
    if target == 0:
        return residual[:0]
    while len(residual) > target:
        residual = next_round(residual, target, similarity)
    return residual


def next_round(residual: Tensor, target: int, similarity: Tensor) -> Tensor:
    """Return the list after one round, which drops 1 to 8 tokens; ``target`` is at least 1."""
    # By falling index, so that a stable sort puts the higher index of equal scores first.
    even = residual[::2].sort(descending=True).values
    odd = residual[1::2]
    scores = similarity[even[:, None], odd].amax(1)
    order = scores.argsort(descending=True, stable=True)
    dropped = min(_DROPPED_AT_ONCE, len(residual) - target, len(even))
    return torch.cat([even[order[dropped:]], odd])
