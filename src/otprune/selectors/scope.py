"""SCOPE: keep tokens that cover the others and are attended to (arXiv 2510.24214)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from otprune.checks import check_choice
from otprune.greedy.coverage import coverage_picks
from otprune.greedy.covers import Cover
from otprune.kernels import reading_waits, symmetric_product, unit_rows
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.tiles import pick_by_tiles
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class SCOPE(Selector):
    """Greedy maximiser of coverage, each gain weighted by CLS attention.

    Source: arXiv 2510.24214 (NeurIPS 2025). The gain of token j is the sum over all tokens i of
    max(0, cosine(i, j) - c_i), c_i being the largest cosine of i to a pick, 0 before the first
    pick. Each pick is the token with the largest gain times attention^alpha; the attention of the
    CLS token is summed over the heads of the block whose output the projector takes. Cosines are of
    the features that the projector takes. An image in several tiles is ranked tile by tile.

    Differs from the released code, which keeps int(k / tiles) tokens a tile, such as 320 for k =
    322 of five tiles; here a remainder goes to the first tiles. ``combined="add"`` is in the code:
    a gain of the order of n plus an attention below the number of heads, which hardly matters.

    Cost O(n²c) for cosines of c channels and O(n²) a pick; memory O(n²). On a GPU, gains that are
    multiplied are kept from pick to pick (`otprune.greedy.coverage`). Ties go to the lower index;
    when no token has a gain left, all tie.

    Attributes:
        alpha: exponent of the attention; 0 for coverage alone.
        combined: "multi" (gain times weight) or "add" (gain plus weight).
    """

    needs = frozenset({"cls_attention", "features"})
    by_tile = True

    alpha: float = 1.0
    combined: Literal["multi", "add"] = "multi"

    def __post_init__(self) -> None:
        """Check the settings."""
        alpha = self.alpha
        number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
        if not number or not 0 <= alpha < float("inf"):
            raise ValueError(f"alpha must be a finite number >= 0, got {alpha!r}")
        check_choice("combined", self.combined, ("multi", "add"))

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        features, attention = signals.given("features"), signals.given("cls_attention")
        units = unit_rows(features.to(tokens.device, torch.float32))
        weights = attention.to(tokens.device, torch.float32).sum(0) ** self.alpha

        def pick(index: Tensor, count: int) -> Tensor:
            some = units[index]
            similarity = symmetric_product(some, some)
            if self.combined == "multi" and reading_waits(similarity):
                cover = Cover(similarity, count, weights=weights[index])
                return coverage_picks([cover])[0]
            return self.cover(similarity, weights[index], count)[0]

        return pick_by_tiles(signals, len(tokens), k, pick, tokens.device)

    def cover(self, similarity: Tensor, weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return ``k`` picks and the value of each, from cosines [n n] and weights [n]."""
        order = torch.empty(k, dtype=torch.long, device=similarity.device)
        values = similarity.new_empty(k)
        covered = torch.zeros_like(weights)
        free = torch.zeros_like(weights)
        # One buffer for all picks: new memory for each would cost as much as the arithmetic.
        excess = torch.empty_like(similarity)
        for t in range(k):
            gains = torch.sub(similarity, covered, out=excess).clamp_(min=0).sum(1)
            gains = gains * weights if self.combined == "multi" else gains + weights
            best = (gains + free).argmax(0, keepdim=True)
            order[t : t + 1] = best
            values[t : t + 1] = gains[best]
            covered = torch.maximum(covered, similarity[best][0])
            free.index_fill_(0, best, float("-inf"))
        return order, values
