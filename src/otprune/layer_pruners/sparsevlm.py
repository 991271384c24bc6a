"""SparseVLM: attention from text tokens that are similar to the image (arXiv 2410.04417)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.checks import check_choice, check_count
from otprune.layer_pruner import Kept, LayerPruner, LayerView, Probe, question_rows, top

Ties = Literal["both", "first"]

V15 = {
    "192": "3:300/7:200/16:110",
    "128": "3:303/7:110/16:36",
    "96": "3:238/7:48/16:26",
    "64": "3:66/7:30/16:17",
}
"""Schedules of versions 1 and 1.5, by the mean number of tokens as the authors count them."""

V2 = {
    "192": "3:300/7:200/16:118",
    "128": "3:238/7:108/16:60",
    "96": "3:246/7:54/16:28",
    "64": "3:66/7:34/16:20",
}


@dataclass(frozen=True, slots=True)
class SparseVLM(LayerPruner):
    """Highest attention from some text tokens; the best dropped tokens are clustered and merged.

    Source: arXiv 2410.04417 (ICML 2025) and its released code, versions 1.5 and 2.0. The text
    tokens, called raters, are chosen once for each image, on the embeddings that enter the language
    model: with m the mean over the image's tokens of softmax(V Tᵀ) over the question's tokens,
    those with m above its mean. After layers 2, 6 and 15 (here: at the input of layers 3, 7, 16)
    the image's tokens are ranked by the attention of the layer that has just run, mean over heads
    and raters.

    Version 1.5 recycles: of the d dropped tokens the int(0.3 d) + 1 = q highest are put into
    int(q / 10) + 1 clusters (see `cluster_labels`), whose means are appended after the kept tokens
    and are ordinary candidates at later points; positions are compact. Version 2 merges nothing and
    keeps the original positions. It divides the attention by the product of all-ones queries and
    keys after rotary embedding, a weight that falls with the distance; then it takes the 14 heads
    with the largest sum over raters and image. That weight becomes negative at some distances above
    1707 (128 channels a head; far sooner with few channels), so version 2 is unsound on the long
    sequences of LLaVA-1.6.

    The schedule's counts are the authors', but at most one less than the tokens before the point,
    so that every point drops something. The mean over 32 layers is larger than in the presets'
    names, since the authors count layer 2 as if it ran on the pruned sequence: 206.5, 145.4, 114.1
    and 82.3 with version 1.5; 206.8, 144.1, 113.9 and 81.8 with version 2, merged tokens included.

    Differs from the released code: no random noise (1e-6) is added to the densities, so that the
    result is reproducible. The noise decides which of two equally dense points is the denser one,
    and so the clusters wherever there are two (preset "v1.5-64" after layer 6): ``ties="first"``
    decides without chance, "both" is the code without noise. If no m is above the mean, all of the
    question's tokens are raters; without a question, the image's last token is. Batches and several
    images are supported.

    Cost: O(r t) for the attention of r raters at each point, O(q²d) for the clusters.

    Attributes:
        schedule: layers and numbers of kept tokens, merged ones not counted.
        version: "1.5" or "2".
        recycle: share of the dropped tokens that version 1.5 merges; 0 merges none.
        per_cluster: number of merged tokens for each cluster.
        ties: which of equally dense points may be centres, "both" or "first"; see
            `cluster_labels`.
        heads: number of heads that version 2 uses; all if there are fewer.
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
                f"schedule must begin at layer 1 or later, got {self.schedule!r}: tokens are "
                "ranked by the attention of the layer before"
            )
        check_choice("version", self.version, ("1.5", "2"))
        number = isinstance(self.recycle, int | float) and not isinstance(self.recycle, bool)
        if not number or not 0 <= self.recycle <= 1:
            raise ValueError(f"recycle must be in [0, 1], got {self.recycle!r}")
        check_count("per_cluster", self.per_cluster, least=1)
        check_choice("ties", self.ties, ("both", "first"))
        check_count("heads", self.heads, least=1)

    @property
    # A property where the class attribute of `LayerPruner` is a constant: it depends on a setting.
    def positions(self) -> Literal["original", "compact"]:  # type: ignore[override]
        """Compact in version 1.5, original in version 2."""
        return "compact" if self.version == "1.5" else "original"

    def recycled(self, dropped: int) -> int:
        """Return how many of the dropped tokens are merged."""
        if self.version == "2" or not self.recycle or dropped < 1:
            return 0
        return min(dropped, int(self.recycle * dropped) + 1)

    def appended(self, dropped: int) -> int:
        """Return how many merged tokens replace so many dropped ones."""
        merged = self.recycled(dropped)
        return min(merged, merged // self.per_cluster + 1)

    def plan(
        self, n: int, layers: int, target: float | None, cost: Callable[[int], float]
    ) -> dict[int, int]:
        """Return by layer how many tokens of an image are kept; see `LayerPruner.plan`."""
        if target is not None:
            return super(SparseVLM, self).plan(n, layers, target, cost)
        counts, remaining = {}, n
        for point in self.points:
            kept = max(1, min(point.count(n), remaining - 1))
            counts[point.layer] = kept
            remaining = kept + self.appended(remaining - kept)
        return counts

    def start(self, view: LayerView) -> Int64[Tensor, " m"]:
        """Return the raters, as indices into the question's tokens."""
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
        """Append the means of the dropped tokens that are recycled."""
        dropped = len(view.visual) - len(kept.index)
        count = self.appended(dropped)
        if kept.scores is None or count == 0:
            return kept
        order = kept.scores.argsort(descending=True, stable=True)
        recycled = order[len(kept.index) :][: self.recycled(dropped)]
        merged = cluster_means(view.hidden[view.visual[recycled]], count, self.ties)
        return Kept(kept.index, merged, kept.scores)


def text_raters(visual: Float[Tensor, "v d"], text: Float[Tensor, "q d"]) -> Int64[Tensor, " m"]:
    """Return the text tokens to which the image's tokens are more similar than to the mean one.

    All of them if there are none. Products and softmax are float32.
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


def cluster_means(
    points: Float[Tensor, "q d"], count: int, ties: Ties = "both"
) -> Float[Tensor, "c d"]:
    """Return the plain means of ``count`` clusters, in the order of their centres' scores.

    Float32 inside, the points' dtype out.
    """
    values = points.float()
    labels = cluster_labels(values, count, ties)
    sums = values.new_zeros(count, values.shape[1]).index_add_(0, labels, values)
    sizes = torch.bincount(labels, minlength=count).unsqueeze(1)
    return (sums / sizes).to(points.dtype)


def cluster_labels(
    points: Float[Tensor, "q d"], count: int, ties: Ties = "both"
) -> Int64[Tensor, " q"]:
    """Return the cluster, 0 to ``count`` - 1, of each of q >= ``count`` >= 1 points.

    Distances are Euclidean over the square root of d. A point's density is exp(-mean squared
    distance to its ``count`` nearest points, itself among them); its score is the density times the
    distance to the nearest denser point (the largest distance of all if there is none). The
    ``count`` highest scores are centres, every other point belongs to the nearest centre.

    Ties are common: with two clusters, the two points closest to each other are equally dense. With
    "both", neither counts as denser, and both are centres; with "first", the one of lower index
    counts as denser. Of equal scores the higher index comes first, as in the released code on a
    CPU; of equal distances to centres, the first centre.
    """
    # Without the matrix product, whose rounding would make exact duplicates differ.
    mode = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(points, points, compute_mode=mode) / points.shape[1] ** 0.5
    nearest = distances.topk(count, dim=1, largest=False).values
    density = (-nearest.square().mean(1)).exp()
    denser = density > density.unsqueeze(1)
    if ties == "first":
        denser |= (density == density.unsqueeze(1)).tril(-1)
    to_denser = distances.masked_fill(~denser, float("inf")).amin(1).clamp(max=distances.max())
    score = density * to_denser
    centres = len(points) - 1 - score.flip(0).argsort(descending=True, stable=True)[:count]
    labels = distances[:, centres].argmin(1)
    labels[centres] = torch.arange(count, device=points.device)
    return labels
