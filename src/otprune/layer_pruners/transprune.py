"""TransPrune: keep tokens that layers change most and the question attends to (2507.20630)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from otprune.checks import check_choice, check_count
from otprune.layer_pruner import Kept, LayerPruner, LayerView, Modules, question_rows, top
from otprune.schedule import parse_schedule

_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class TransPrune(LayerPruner):
    """Token transition variation (TTV) and instruction-guided attention (IGA), summed.

    Source: arXiv 2507.20630 (CVPR 2026). A module of a layer (attention or feed-forward) maps its
    normalised input x to y, before the residual sum; a token's transition in it is the softmax over
    tokens of (1 - cos(x, y)), times ‖y‖/‖x‖. TTV is the sum over both modules of the layers
    observed so far. IGA is the attention of the layer about to run from the question to a token,
    mean over heads and over the question's tokens. Both are divided by their sum over the image's
    remaining tokens (+ 1e-8). Positions are renumbered after each pruning.

    The released lists count layers from 1, "after layer r", which is the input of 0-based layer r.
    Where code and paper differ, the code is the default: direction 1 - cos, 1 - |cos| in the paper.
    The softmax runs over all positions of the sequence, text included, as in the code.

    Limits of the released code that do not hold here: all prompts of a batch share one softmax
    (here each has its own, without padding), no eager attention, only a prompt's first image is
    pruned, prompts are cut at 2048 positions.

    Ours: the score is twice the weighted mean, which at ``weight`` 0.5 is the sum in the code; the
    attention is computed for the question's rows alone, or, where no text follows the image, for
    the image's last token.

    Cost O(t d) for each layer observed, O(h q t c) a pruning for q question tokens and h heads of c
    channels; ties go to the lower index.

    Attributes:
        schedule: layers and the shares kept, of the tokens before any pruning. Preset "high" is the
            released scripts' and the default. Preset "low" is inferred: the paper prints only its
            cost, which no other triple of sixteenths has on both models.
        observe_from: first 0-based layer observed.
        observe_to: last 0-based layer observed.
        weight: a, share of TTV in the score; 1 - a is that of IGA.
        formula: direction of a transition, "code" 1 - cos or "paper" 1 - |cos|.
        iga: whether the score includes the question's attention; preset "ttv_only" ranks without.
    """

    positions: ClassVar[Literal["original", "compact"]] = "compact"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "high": {"schedule": "7:0.875/9:0.625/12:0.125"},
        "low": {"schedule": "7:0.625/9:0.1875/12:0.0625"},
        "ttv_only": {"iga": False},
    }

    schedule: str = "7:0.875/9:0.625/12:0.125"
    observe_from: int = 6
    observe_to: int = 11
    weight: float = 0.5
    formula: Literal["code", "paper"] = "code"
    iga: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        points = parse_schedule(self.schedule, least=1)
        check_count("observe_from", self.observe_from)
        check_count("observe_to", self.observe_to, least=self.observe_from)
        if points[0].layer <= self.observe_from:
            raise ValueError(
                f"observe_from must be below the schedule's first layer {points[0].layer}, so that "
                f"a layer is observed before it, got {self.observe_from}"
            )
        number = self.weight if isinstance(self.weight, int | float) else -1
        if isinstance(self.weight, bool) or not 0 <= number <= 1:
            raise ValueError(f"weight must be in [0, 1], got {self.weight!r}")
        check_choice("formula", self.formula, ("code", "paper"))
        if not isinstance(self.iga, bool):
            raise ValueError(f"iga must be true or false, got {self.iga!r}")

    @property
    def observes(self) -> frozenset[int]:
        """Layers ``observe_from`` to ``observe_to``."""
        return frozenset(range(self.observe_from, self.observe_to + 1))

    def observe(self, modules: Modules) -> Float[Tensor, "b t"]:
        """Return the transitions in attention and feed-forward module, summed; 0 at padding."""
        attention = self._transition(modules.attention_in, modules.attention_out, modules.valid)
        return attention + self._transition(
            modules.feed_forward_in, modules.feed_forward_out, modules.valid
        )

    def _transition(
        self,
        before: Float[Tensor, "b t d"],
        after: Float[Tensor, "b t d"],
        valid: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b t"]:
        before, after = before.float(), after.float()
        direction = torch.cosine_similarity(before, after, dim=-1)
        if self.formula == "paper":
            direction = direction.abs()
        share = (1 - direction).masked_fill(~valid, float("-inf")).softmax(-1)
        magnitude = after.norm(dim=-1) / before.norm(dim=-1).clamp(min=_EPSILON)
        # Values at padding are arbitrary and may be NaN.
        return (share * magnitude).masked_fill(~valid, 0)

    def _prune(self, view: LayerView, k: int) -> Kept:
        if view.accumulated is None:
            raise ValueError(f"TransPrune has observed no layer before layer {view.layer}")
        changed = _shares(view.accumulated[view.visual])
        if not self.iga:
            return top(changed, k)
        attention = view.probe.attention(view.layer, question_rows(view))
        attended = _shares(attention[:, :, view.visual].mean((0, 1)))
        return top(2 * self.weight * changed + 2 * (1 - self.weight) * attended, k)


def _shares(values: Float[Tensor, " v"]) -> Float[Tensor, " v"]:
    return values / (values.sum() + _EPSILON)
