"""HoloV: every chunk of the token sequence keeps a share of the budget (arXiv 2510.02912)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from otprune.checks import check_count, check_positive
from otprune.kernels import unit_rows
from otprune.selector import Selector
from otprune.selectors.fastervlm import mean_attention
from otprune.signals import Signals
from otprune.tiles import patches, row_ends
from otprune.types import PickOrder, VisualTokens

_LEAST = 1e-6
"""Added to a mean variance before a division by it, as in the released code."""


@dataclass(frozen=True, slots=True)
class HoloV(Selector):
    """The most attended tokens of each chunk of the sequence, in proportion to the chunk's score.

    Source: arXiv 2510.02912 (NeurIPS 2025), its released code for LLaVA. The sequence is cut into
    chunks of even length (the first ones a token longer where it does not divide). A token's score
    is 1000 times the CLS attention, mean over the heads of the block whose output the projector
    takes, plus ``context`` times the variance of its cosines to the tokens of its chunk (0 for the
    one to itself), scaled so that the variances' mean over the chunk is that of the attention term.
    A chunk's share of the budget is proportional to its mean score and rounded down; the rest goes
    to the chunks with the highest scores, one each. Within a chunk the most attended tokens are
    kept. An image in several tiles is one sequence, newline tokens left out.

    By that scaling a chunk's mean score is 1000 (1 + context) times its mean attention, but for the
    1e-6 in the division: the variances do not change what is kept. This holds for the released code
    and here.

    Differs from the released code: there a chunk with a larger share than it has tokens loses the
    surplus, and zero vectors take its place (106 of 192 on one test case). Here the surplus is
    divided by the same rule among the other chunks, so that k distinct tokens are kept: those of
    the code, and others. A chunk of a single token has weight 1/1000 in the code.

    Budgets are not nested. Cost O(n log n + n²d / chunks); memory O(nd). Ties go to the lower
    index, of chunks and of tokens.

    Without a CLS token the attention is that which each token receives from all patches, as in the
    released code for Qwen2.5-VL, which takes the encoder's last block, mean over heads, over
    queries and over the patches of a token. (There it is left in the order of the windows, while
    tokens are put back in raster order; and the number of chunks depends on the budget.)

    Attributes:
        chunks: how many; at most one for each token.
        context: weight of the variances.
    """

    needs = frozenset({"cls_attention"})
    needs_without_cls = frozenset({"received_attention"})

    chunks: int = 16
    context: float = 0.09

    def __post_init__(self) -> None:
        """Check the settings."""
        check_count("chunks", self.chunks, least=1)
        check_positive("context", self.context)

    @property
    def nested(self) -> bool:
        """No: shares are rounded down, so chunks can lose tokens as k grows."""
        return False

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        index = patches(signals, len(tokens)).to(tokens.device)
        if len(index) == 0:
            return row_ends(signals)[:k].to(tokens.device)
        attention = mean_attention(signals).to(tokens.device)[index]
        groups = torch.arange(len(index), device=index.device).tensor_split(
            min(self.chunks, len(index))
        )
        scores = self.chunk_scores(tokens[index], attention)
        sizes = [len(group) for group in groups]
        counts = allot(scores.tolist(), sizes, min(k, len(index)))
        picks = []
        for group, count in zip(groups, counts, strict=True):
            order = attention[group].argsort(descending=True, stable=True)
            picks.append(group if count == len(group) else group[order[:count]])
        chosen = index[torch.cat(picks)]
        return torch.cat([chosen, row_ends(signals)[: k - len(chosen)].to(chosen.device)])

    def chunk_scores(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """Return the mean score of each chunk of tokens [n d] with attention [n]."""
        units = unit_rows(tokens.float())
        parts = min(self.chunks, len(units))
        means = []
        for chunk, part in zip(
            units.tensor_split(parts), attention.tensor_split(parts), strict=True
        ):
            attended = 1000 * part.float()
            cosines = (chunk @ chunk.T).fill_diagonal_(0)
            # The variance of a single number is 0 here, not undefined.
            variance = cosines.var(1, correction=min(1, len(chunk) - 1))
            scale = attended.mean() / (variance.mean() + _LEAST)
            means.append((attended + self.context * scale * variance).mean())
        return torch.stack(means)


def allot(scores: list[float], sizes: list[int], k: int) -> list[int]:
    """Return how many of ``k`` tokens each chunk keeps, in proportion to its score.

    Shares are rounded down, and the rest goes to the highest scores, one each. Where a share
    exceeds a chunk's size, the surplus is divided in the same way among chunks with tokens left.
    """
    counts = [0] * len(sizes)
    left = k
    while left:
        unfilled = [i for i in range(len(sizes)) if counts[i] < sizes[i]]
        total = sum(scores[i] for i in unfilled)
        # Without any attention all chunks have the same weight.
        weights = [scores[i] / total if total > 0 else 1 / len(unfilled) for i in unfilled]
        given = {i: int(weight * left) for i, weight in zip(unfilled, weights, strict=True)}
        best = sorted(unfilled, key=lambda i: -scores[i])
        for i in best[: left - sum(given.values())]:
            given[i] += 1
        for i, more in given.items():
            counts[i] += min(more, sizes[i] - counts[i])
        left = k - sum(counts)
    return counts
