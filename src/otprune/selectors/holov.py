"""HoloV: every stretch of the image keeps its share of tokens (arXiv 2510.02912)."""

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
"""Added to a mean variance before it is divided by, as in the released code."""


@dataclass(frozen=True, slots=True)
class HoloV(Selector):
    """The most attended tokens of each chunk of the sequence, as many as its score says.

    Source: arXiv 2510.02912 (NeurIPS 2025), its released code for LLaVA. The sequence is cut into
    chunks of even length (the first ones a token longer where it does not divide). A token's score
    is 1000 times the CLS attention, mean over the heads of the block whose output the projector
    takes, plus ``context`` times the variance of its cosines to the tokens of its chunk (0 for the
    one to itself), scaled so that the variances' mean over the chunk is that of the attention term.
    A chunk's share of the budget is that of its mean score, cut to a whole number; the rest goes to
    the chunks with the highest scores, one each. Within a chunk the most attended tokens stay. An
    image in several tiles is one sequence, ends of rows left out.

    By that scaling a chunk's mean score is 1000 (1 + context) times its mean attention, the 1e-6 in
    the division aside: the variances do not change what is kept. So it is in the code, and here.

    Differs from the released code: there a chunk that is given more tokens than it has loses the
    surplus, and zero vectors stand in for it (106 of 192 on one test case). Here the surplus is
    shared out again by the same rule among the chunks with room, so that k distinct tokens come
    out: those of the code, and others. A chunk of a single token weighs 1/1000 in the code.

    Budgets are not nested. Cost O(n log n + n²d / chunks); memory O(nd). Ties go to the lower
    index, of chunks and of tokens.

    Attributes:
        chunks: how many; at most one for each token.
        context: weight of the variances.
    """

    needs = frozenset({"cls_attention"})

    chunks: int = 16
    context: float = 0.09

    def __post_init__(self) -> None:
        """Check the settings."""
        check_count("chunks", self.chunks, least=1)
        check_positive("context", self.context)

    @property
    def nested(self) -> bool:
        """Whether smaller budgets are prefixes: no, shares are cut to whole numbers."""
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
    """Return how many of ``k`` tokens each chunk gives, in proportion to its score.

    Shares are cut to whole numbers, and the rest goes to the highest scores, one each. What a chunk
    does not have is shared out again in the same way among those that have more.
    """
    counts = [0] * len(sizes)
    left = k
    while left:
        room = [i for i in range(len(sizes)) if counts[i] < sizes[i]]
        total = sum(scores[i] for i in room)
        # Without any attention all chunks weigh the same.
        weights = [scores[i] / total if total > 0 else 1 / len(room) for i in room]
        given = {i: int(weight * left) for i, weight in zip(room, weights, strict=True)}
        best = sorted(room, key=lambda i: -scores[i])
        for i in best[: left - sum(given.values())]:
            given[i] += 1
        for i, more in given.items():
            counts[i] += min(more, sizes[i] - counts[i])
        left = k - sum(counts)
    return counts
