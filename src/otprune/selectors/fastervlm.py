"""FasterVLM: keep the tokens that the vision encoder's CLS token attends to (2412.01818v1)."""

from dataclasses import dataclass

from torch import Tensor

from otprune.selector import Selector
from otprune.signals import Signals
from otprune.tiles import pick_by_tiles
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class FasterVLM(Selector):
    """The k tokens with the highest CLS attention.

    Source: arXiv 2412.01818v1 (from v2 on the paper is about VisPruner). The attention is
    that of the block whose output the projector takes, mean over heads. An image in several tiles
    is ranked tile by tile, with the budget divided as evenly as possible.

    Released code and paper agree. The code has a count for each tile; here k = tiles * count. The
    code chooses before the projector and gathers after it, with the same result.

    Cost O(n log n); memory O(n). Ties go to the lower index.
    """

    needs = frozenset({"cls_attention"})
    by_tile = True

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        scores = mean_attention(signals).to(tokens.device)

        def pick(index: Tensor, count: int) -> Tensor:
            return scores[index].argsort(descending=True, stable=True)[:count]

        return pick_by_tiles(signals, len(tokens), k, pick, tokens.device)


def mean_attention(signals: Signals) -> Tensor:
    """Return the CLS token's attention to each token, mean over heads, float32; [n].

    Of an encoder without a CLS token it is the attention that each token receives; methods that do
    not know it do not get as far.
    """
    attention = signals.cls_attention
    if attention is None:
        attention = signals.given("received_attention")
    return attention.float().mean(0)
