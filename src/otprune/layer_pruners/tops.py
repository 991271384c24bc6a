"""TOPS: relevant, covering and diverse tokens, before and inside the model (arXiv 2606.27161)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.checks import check_choice
from otprune.compiled import loops_for
from otprune.kernels import symmetric_product, unit_rows
from otprune.layer_pruner import Kept, LayerPruner, LayerView, question_rows
from otprune.layer_pruners.sparsevlm import text_raters
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens

Normalise = Literal["mean", "minmax"]
NORMALISATIONS = ("mean", "minmax")

Raters = Literal["attention", "similarity", "all", "last"]


@dataclass(frozen=True, slots=True)
class TOPSStage(Selector):
    """Stage I of TOPS: relevance from the CLS token, coverage and diversity from the tokens.

    Source: arXiv 2606.27161, Algorithm 1; no released code. `token_set` is the selection. The
    paper does not state layer and heads of the attention: here it is that of the block whose output
    the projector takes, mean or largest over heads.

    All tokens of an image are candidates together, over all tiles. Cost O(n²) a pick.

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


def _preset(schedule: str, alpha: float, lam: float) -> dict[str, Any]:
    return {"schedule": schedule, "alpha": alpha, "lam": lam}


@dataclass(frozen=True, slots=True)
class TOPS(LayerPruner):
    """The same greedy selection three times: after the projector and at two layers.

    Source: arXiv 2606.27161, Algorithms 1 and 2; no released code. The schedule's layer 0 is stage
    I, a `TOPSStage`, whose relevance is the CLS token's attention. The later points are stage II:
    relevance is the attention of some question tokens, called raters, to the image's tokens, mean
    over raters and heads; coverage and diversity are computed from the cosines between hidden
    states at the layer's input (see `token_set`). The remaining tokens are renumbered 0, 1, 2, ...

    Tables 9 and 17 print the same scores for two schedules. Only that of Table 17 (2T, then T/2 at
    layer 12, T/4 at layer 24) has T tokens on average over 32 layers; that of Table 9 has 152 for
    T = 128. Of Table 17 only the row of 128 is printed; the other presets "table17-..." follow from
    its rule, as do "next-..." and "13b-..." (layers 15 and 30 of 40). Each has the paper's weights
    for its model and budget.

    What the paper leaves open, and the choice made here:

    - normalisation: min-max in Eq. 6, by the mean in the algorithms; see ``normalise``.
    - the CLS attention: mean over heads, in the block whose output the projector takes; see
      ``first_heads``.
    - raters: "dynamic, by thresholding the text-visual relevance". Here: at each point, the
      question's tokens whose attention to the image's tokens, mean over heads, is above their mean.
      "similarity" thresholds the embedding similarity of SparseVLM on the hidden states; "all" and
      "last" are the paper's ablation. If no token is above the threshold, all of the question's are
      raters; without a question, the image's last token is.
    - the attention at a layer: of the layer about to run, or by ``attention`` of the one before.
    - similarity: cosine.

    Cost: O(v²) a pick, k picks; O(q t) for the attention of q question tokens at each point.

    Attributes:
        schedule: layers and numbers of kept tokens as in the paper; layer 0 is stage I.
        alpha: weight of diversity in stage II.
        lam: weight of coverage in stage II.
        first_alpha: weight of diversity in stage I.
        first_lam: weight of coverage in stage I.
        normalise: "mean" or "minmax", in both stages.
        first_heads: "mean" or "max" over the heads of the CLS attention.
        raters: "attention", "similarity", "all" or "last".
        attention: layer of the attention, "next" (about to run) or "previous".
    """

    positions: ClassVar[Literal["original", "compact"]] = "compact"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "table17-128": _preset("0:256/12:64/24:32", 0.5, 0.5),
        "table17-64": _preset("0:128/12:32/24:16", 0.5, 1.0),
        "table17-32": _preset("0:64/12:16/24:8", 0.5, 1.0),
        "table9-128": _preset("0:256/12:128/24:32", 0.5, 0.5),
        "table9-64": _preset("0:128/12:64/24:16", 0.5, 1.0),
        "table9-32": _preset("0:64/12:32/24:8", 0.5, 1.0),
        "next-640": _preset("0:1280/12:320/24:160", 0.5, 0.5),
        "next-320": _preset("0:640/12:160/24:80", 0.5, 0.4),
        "next-160": _preset("0:320/12:80/24:40", 0.5, 0.5),
        "13b-128": _preset("0:256/15:64/30:32", 0.5, 0.4),
        "13b-64": _preset("0:128/15:32/30:16", 0.5, 0.4),
        "13b-32": _preset("0:64/15:16/30:8", 0.5, 0.4),
        "next-13b-640": _preset("0:1280/15:320/30:160", 0.5, 0.5),
        "next-13b-320": _preset("0:640/15:160/30:80", 0.5, 0.5),
        "next-13b-160": _preset("0:320/15:80/30:40", 0.5, 0.5),
    }

    schedule: str = "0:256/12:64/24:32"
    alpha: float = 0.5
    lam: float = 0.5
    first_alpha: float = 0.5
    first_lam: float = 0.5
    normalise: Normalise = "mean"
    first_heads: Literal["mean", "max"] = "mean"
    raters: Raters = "attention"
    attention: Literal["next", "previous"] = "next"

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.points[-1].layer == 0:
            raise ValueError(f"schedule must have a layer after layer 0, got {self.schedule!r}")
        for name in ("alpha", "lam", "first_alpha", "first_lam"):
            check_weight(name, getattr(self, name))
        check_choice("normalise", self.normalise, NORMALISATIONS)
        check_choice("first_heads", self.first_heads, ("mean", "max"))
        check_choice("raters", self.raters, ("attention", "similarity", "all", "last"))
        check_choice("attention", self.attention, ("next", "previous"))

    @property
    # A property where the class attribute of `LayerPruner` is a constant: it depends on a setting.
    def looks_back(self) -> bool:  # type: ignore[override]
        """Whether the attention is that of the layer before."""
        return self.attention == "previous"

    @property
    def first(self) -> Selector | None:
        """Stage I, if the schedule has a layer 0."""
        if self.points[0].layer:
            return None
        return TOPSStage(self.first_alpha, self.first_lam, self.normalise, self.first_heads)

    def _prune(self, view: LayerView, k: int) -> Kept:
        relevance = self.relevance(view)
        if k == 0:
            return Kept(view.visual[:0], scores=relevance)
        hidden = view.hidden[view.visual]
        picks = token_set(hidden, relevance, k, self.alpha, self.lam, self.normalise)
        return Kept(picks, scores=relevance)

    def relevance(self, view: LayerView) -> Float[Tensor, " v"]:
        """Return the attention of the raters to the image's tokens, mean over raters and heads."""
        question = question_rows(view)
        if self.raters == "last":
            question = question[-1:]
        elif self.raters == "similarity":
            question = question[text_raters(view.hidden[view.visual], view.hidden[question])]
        layer = view.layer - 1 if self.attention == "previous" else view.layer
        attention = view.probe.attention(layer, question)[:, :, view.visual].mean(0)
        if self.raters == "attention":
            attention = attention[above_mean(attention.sum(1))]
        return attention.mean(0)


def above_mean(values: Float[Tensor, " q"]) -> Int64[Tensor, " m"]:
    """Return the indices of the values above their mean; all indices if there are none."""
    found = (values > values.mean()).nonzero()[:, 0]
    return found if len(found) else torch.arange(len(values), device=values.device)


def token_set(
    tokens: Float[Tensor, "n d"],
    relevance: Float[Tensor, " n"],
    k: int,
    alpha: float,
    lam: float,
    normalise: Normalise,
) -> PickOrder:
    """Return the first ``k`` picks of TOPS' greedy selection.

    The first is the most relevant token. Each next one has the highest sum of normalised relevance,
    ``alpha`` times normalised diversity, and ``lam`` times normalised coverage. Diversity is 1 -
    the largest cosine to a pick. Coverage is the sum over all remaining tokens j, itself included,
    of max(0, cosine to j - largest cosine of a pick to j). At every pick, criteria are normalised
    over the remaining candidates: divided by their mean, or scaled to 0..1. A criterion that is 0
    for all, or under "minmax" the same for all, counts 0. Ties go to the lower index. Cosines are
    float32.
    """
    units = unit_rows(tokens.float())
    cosines = symmetric_product(units, units)
    relevance = relevance.float()
    loops = loops_for(cosines)
    if loops is not None:
        minmax = normalise == "minmax"
        return loops.token_set(cosines, relevance.contiguous(), k, alpha, lam, minmax)
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
            # Picks need no coverage: no cosine is above infinity.
            covered = best.masked_fill(~free, torch.inf)
            gains = (cosines - covered).clamp_(min=0).sum(1)
            score = score + lam * normalised(gains, free, normalise)
        order[t] = score.masked_fill(~free, -torch.inf).argmax()
    return order


def normalised(values: Tensor, free: Tensor, how: Normalise) -> Tensor:
    """Return values normalised over those that are ``free``: at least one, none negative."""
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
