"""SparseVLM: text tokens that look like the image rate its tokens (arXiv 2410.04417)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.checks import check_choice, check_count
from otprune.layer_pruner import Kept, LayerPruner, LayerView, Probe, question_rows, top
from otprune.layer_pruners.sparsevlm_clusters import Ties, cluster_means

V15 = {
    "192": "3:300/7:200/16:110",
    "128": "3:303/7:110/16:36",
    "96": "3:238/7:48/16:26",
    "64": "3:66/7:30/16:17",
}
"""Schedules of versions 1 and 1.5, by the mean number of tokens as the authors count it."""

V2 = {
    "192": "3:300/7:200/16:118",
    "128": "3:238/7:108/16:60",
    "96": "3:246/7:54/16:28",
    "64": "3:66/7:34/16:20",
}


@dataclass(frozen=True, slots=True)
class SparseVLM(LayerPruner):
    """Highest attention from the raters; the best of the dropped tokens are clustered and merged.

    Source: arXiv 2410.04417 (ICML 2025) and its released code, versions 1.5 and 2.0. Raters are
    chosen once, on the embeddings that enter the language model: with m the mean over the image's
    tokens of softmax(V Tᵀ) over the question's tokens, those with m above its mean. After layers 2,
    6 and 15 (here: at the input of layers 3, 7, 16) the tokens are ranked by the attention of the
    layer just run, mean over heads and raters.

    Version 1.5 recycles: of the d dropped tokens the int(0.3 d) + 1 = q highest go into
    int(q / 10) + 1 clusters (see `cluster_labels`), whose means are appended after the kept tokens
    and are ordinary candidates at later points; positions are compact. Version 2 merges nothing and
    keeps the original positions. It divides the attention by what the rotary angles make of
    all-ones queries and keys, a weight that falls with the distance; then it takes the 14 heads
    with the largest sum over raters and image. That weight turns negative at some distances above
    1707 (128 channels a head; far sooner with few channels), so version 2 is unsound on the long
    sequences of LLaVA-1.6.

    The schedule's counts are the authors'; at most one less than the tokens that are there, so that
    every point drops something. The mean over 32 layers is more than the presets' names say, since
    the authors' count lets layer 2 run on the pruned sequence: 206.5, 145.4, 114.1 and 82.3
    with version 1.5; 206.8, 144.1, 113.9 and 81.8 with version 2, merged tokens included.

    Differs from the released code: no random noise (1e-6) on the densities, so that the answer is
    reproducible. The noise makes one of two equally dense points the denser one, which decides the
    clusters wherever there are two of them (preset "v1.5-64" after layer 6): ``ties="first"`` does
    so without chance, "both" is the code with its noise at 0. Without a rater above the mean all of
    the question rates, without a question the image's last token. Batches and several images
    work, raters being chosen for each image.

    Cost: O(r t) attention anew for r raters at each point, O(q²d) for the clusters.

    Attributes:
        schedule: tokens that stay, merged ones not counted.
        version: "1.5" or "2".
        recycle: share of the dropped tokens that version 1.5 merges; 0 merges none.
        per_cluster: tokens to be merged for each cluster.
        ties: "both" or "first" of equally dense points may be centres, see `cluster_labels`.
        heads: how many heads version 2 listens to; all if there are fewer.
    """

    looks_back: ClassVar[bool] = True
    starts: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **{f"v1.5-{name}": {"version": "1.5", "schedule": points} for name, points in V15.items()},
        **{f"v2-{name}": {"version": "2", "schedule": points} for name, points in V2.items()},
    }

    schedule: str = V15["192"]
    version: Literal["1.5", "2"] = "1.5"
    recycle: float = 0.3
    per_cluster: int = 10
    ties: Ties = "both"
    heads: int = 14

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.points[0].layer == 0:
            raise ValueError(
                f"schedule must begin at layer 1 or later, got {self.schedule!r}: tokens are rated "
                "by the attention of the layer before"
            )
        check_choice("version", self.version, ("1.5", "2"))
        number = isinstance(self.recycle, int | float) and not isinstance(self.recycle, bool)
        if not number or not 0 <= self.recycle <= 1:
            raise ValueError(f"recycle must be in [0, 1], got {self.recycle!r}")
        check_count("per_cluster", self.per_cluster, least=1)
        check_choice("ties", self.ties, ("both", "first"))
        check_count("heads", self.heads, least=1)

    @property
    def positions(self) -> Literal["original", "compact"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Compact in version 1.5, original in version 2."""
        return "compact" if self.version == "1.5" else "original"

    def recycled(self, dropped: int) -> int:
        """Return how many of the dropped tokens are merged."""
        if self.version == "2" or not self.recycle or dropped < 1:
            return 0
        return min(dropped, int(self.recycle * dropped) + 1)

    def appended(self, dropped: int) -> int:
        """Return how many merged tokens stand in for so many dropped ones."""
        merged = self.recycled(dropped)
        return min(merged, merged // self.per_cluster + 1)

    def plan(
        self, n: int, layers: int, target: float | None, cost: Callable[[int], float]
    ) -> dict[int, int]:
        """Return how many tokens of an image are left at which layers; see `LayerPruner.plan`."""
        if target is not None:
            return super(SparseVLM, self).plan(n, layers, target, cost)
        counts, alive = {}, n
        for point in self.points:
            left = max(1, min(point.count(n), alive - 1))
            counts[point.layer] = left
            alive = left + self.appended(alive - left)
        return counts

    def start(self, view: LayerView) -> Int64[Tensor, " m"]:
        """Return the raters, as numbers among the question's tokens."""
        return text_raters(view.hidden[view.visual], view.hidden[view.question])

    def _prune(self, view: LayerView, k: int) -> Kept:
        rows = view.question[view.started.to(view.question.device)]
        if len(rows) == 0:
            rows = question_rows(view)
        ratings = view.probe.attention(view.layer - 1, rows)[:, :, view.visual]
        if self.version == "2":
            ratings = ratings / rotary_weights(view.probe, view.layer - 1, rows, view.visual)
            ratings = ratings[largest_heads(ratings, self.heads)]
        kept = top(ratings.mean(0).mean(0), k)
        return self._with_merged(kept, view)

    def _with_merged(self, kept: Kept, view: LayerView) -> Kept:
        """Append the means of what is recycled of the dropped tokens."""
        dropped = len(view.visual) - len(kept.index)
        count = self.appended(dropped)
        if kept.scores is None or count == 0:
            return kept
        order = kept.scores.argsort(descending=True, stable=True)
        recycled = order[len(kept.index) :][: self.recycled(dropped)]
        merged = cluster_means(view.hidden[view.visual[recycled]], count, self.ties)
        return Kept(kept.index, merged, kept.scores)


def text_raters(visual: Float[Tensor, "v d"], text: Float[Tensor, "q d"]) -> Int64[Tensor, " m"]:
    """Return the text tokens on which the image's tokens fall more than on the mean one.

    All if none does; products and softmax in float32.
    """
    if len(text) == 0:
        return torch.empty(0, dtype=torch.long, device=text.device)
    share = (visual.float() @ text.float().T).softmax(1).mean(0)
    raters = (share > share.mean()).nonzero()[:, 0]
    return raters if len(raters) else torch.arange(len(text), device=text.device)


def rotary_weights(
    probe: Probe, layer: int, rows: Int64[Tensor, " r"], columns: Int64[Tensor, " v"]
) -> Float[Tensor, "r v"]:
    """Return the scaled products of all-ones queries and keys after their rotary embedding.

    Of c channels each pair gives (cos - sin)(cos' - sin') + (cos + sin)(cos' + sin'), which is
    twice the cosine of the difference of angles: Σ 2 cos(Δθ_i) / √c over the c / 2 pairs. As both
    tables hold every angle twice, that is their plain product.
    """
    cosines, sines = (table.float() for table in probe.rotary(layer))
    products = cosines[rows] @ cosines[columns].T + sines[rows] @ sines[columns].T
    return products / cosines.shape[1] ** 0.5


def largest_heads(ratings: Float[Tensor, "h r v"], count: int) -> Int64[Tensor, " m"]:
    """Return the ``count`` heads with the largest sums, ascending."""
    order = ratings.sum((1, 2)).argsort(descending=True, stable=True)
    return order[:count].sort().values
