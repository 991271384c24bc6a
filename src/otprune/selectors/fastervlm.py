"""FasterVLM: keep the tokens that the vision encoder's CLS token attends to (2412.01818v1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from otprune.adaptive import AdaptiveSelector, Gains
from otprune.signals import Signals
from otprune.tiles import pick_by_tiles
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class FasterVLM(AdaptiveSelector):
    """The k tokens with the highest CLS attention.

    Source: arXiv 2412.01818v1 (from v2 on the paper is about VisPruner). The attention is
    that of the block whose output the projector takes, mean over heads. An image in several tiles
    is ranked tile by tile, with the budget divided as evenly as possible.

    Released code and paper agree. The code has a count for each tile; here k = tiles * count. The
    code chooses before the projector and gathers after it, with the same result.

    Cost O(n log n); memory O(n). Ties go to the lower index.

    Adaptive counts (`AdaptiveSelector`), which are no part of the release: the gain of a pick is
    the share of the attention that is not on earlier picks. So the tokens are kept that it takes to
    have more than 1 - threshold of the attention. For images of one tile.

    Attributes:
        adaptive: whether images have counts of their own, see `AdaptiveSelector`.
        threshold: with ``adaptive=True``, the share of the attention that may be left out.
    """

    needs = frozenset({"cls_attention"})
    by_tile = True

    def __post_init__(self) -> None:
        """Check the settings."""
        self._check_threshold()

    def _rank_with_gains(
        self, tokens: list[Tensor], k: list[int], most: list[int], signals: list[Signals]
    ) -> list[Gains]:
        if any(one.tiles is not None for one in signals):
            raise ValueError("adaptive=True of FasterVLM needs images of one tile, got several")
        orders = self._rank_images(tokens, most, signals)
        return [
            Gains(order, _left_out(mean_attention(one).to(order.device), order))
            for order, one in zip(orders, signals, strict=True)
        ]

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        scores = mean_attention(signals).to(tokens.device)

        def pick(index: Tensor, count: int) -> Tensor:
            return scores[index].argsort(descending=True, stable=True)[:count]

        return pick_by_tiles(signals, len(tokens), k, pick, tokens.device)


def _left_out(scores: Tensor, order: PickOrder) -> Tensor:
    """Return for each pick the share of all scores that is not on earlier picks."""
    shares = scores.double() / scores.double().sum().clamp(min=torch.finfo(torch.double).tiny)
    return torch.cat([shares.new_ones(1), 1 - shares[order].cumsum(0)[:-1]])


def mean_attention(signals: Signals) -> Tensor:
    """Return the CLS token's attention to each token, mean over heads, float32; [n].

    Of an encoder without a CLS token it is the attention that each token receives; methods that do
    not know it do not get as far.
    """
    attention = signals.cls_attention
    if attention is None:
        attention = signals.given("received_attention")
    return attention.float().mean(0)
