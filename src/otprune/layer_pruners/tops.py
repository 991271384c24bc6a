"""TOPS: relevant, covering and diverse tokens, before and inside the model (arXiv 2606.27161)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.checks import check_choice
from otprune.layer_pruner import Kept, LayerPruner, LayerView, question_rows
from otprune.layer_pruners.sparsevlm import text_raters
from otprune.layer_pruners.tops_stage import (
    NORMALISATIONS,
    Normalise,
    TOPSStage,
    check_weight,
    token_set,
)
from otprune.selector import Selector

Raters = Literal["attention", "similarity", "all", "last"]


def _preset(schedule: str, alpha: float, lam: float) -> dict[str, Any]:
    return {"schedule": schedule, "alpha": alpha, "lam": lam}


@dataclass(frozen=True, slots=True)
class TOPS(LayerPruner):
    """The same greedy selection three times: after the projector and at two layers.

    Source: arXiv 2606.27161, Algorithms 1 and 2; no released code. The schedule's layer 0 is stage
    I, a `TOPSStage`, whose relevance is the CLS token's attention. The later points are stage II:
    relevance is the attention of the question's raters to the image's tokens, mean over raters and
    heads; coverage and diversity are of the cosines between hidden states at the layer's input (see
    `token_set`). What is left is renumbered 0, 1, 2, ...

    Tables 9 and 17 print the same scores for two schedules. Only that of Table 17 (2T, then T/2 at
    layer 12, T/4 at layer 24) has T tokens on average over 32 layers; that of Table 9 has 152 for
    T = 128. Of Table 17 only the row of 128 is printed; the other presets "table17-..." follow from
    its rule, as do "next-..." and "13b-..." (layers 15 and 30 of 40). Each has the paper's weights
    for its model and budget.

    What the paper leaves open, and what is done here:

    - normalisation: Eq. 6 says min-max, the algorithms say by the mean; ``normalise``.
    - the CLS attention: head mean, in the block whose output the projector takes; ``first_heads``.
    - raters: "dynamic, by thresholding the text-visual relevance", which is taken as the question's
      tokens whose attention to the image's tokens, mean over heads, is above their mean, at each
      point anew. "similarity" thresholds the embedding similarity of SparseVLM on the hidden
      states; "all" and "last" are the paper's ablation. Without a rater above the threshold all of
      the question rates; without a question the image's last token.
    - the attention at a layer: of the layer about to run; ``attention`` may name the one just run.
    - similarity: cosine.

    Cost: O(v²) a pick, k picks; O(q t) attention anew for q question tokens at each point.

    Attributes:
        schedule: tokens that stay; counts as in the paper, layer 0 for stage I.
        alpha: weight of diversity in stage II.
        lam: weight of coverage in stage II.
        first_alpha: weight of diversity in stage I.
        first_lam: weight of coverage in stage I.
        normalise: "mean" or "minmax", in both stages.
        first_heads: "mean" or "max" over the heads of the CLS attention.
        raters: "attention", "similarity", "all" or "last".
        attention: "next" (the layer about to run) or "previous".
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
            raise ValueError(f"schedule must go on after layer 0, got {self.schedule!r}")
        for name in ("alpha", "lam", "first_alpha", "first_lam"):
            check_weight(name, getattr(self, name))
        check_choice("normalise", self.normalise, NORMALISATIONS)
        check_choice("first_heads", self.first_heads, ("mean", "max"))
        check_choice("raters", self.raters, ("attention", "similarity", "all", "last"))
        check_choice("attention", self.attention, ("next", "previous"))

    @property
    def looks_back(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
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
    """Return which values exceed their mean; all if none does."""
    found = (values > values.mean()).nonzero()[:, 0]
    return found if len(found) else torch.arange(len(values), device=values.device)
