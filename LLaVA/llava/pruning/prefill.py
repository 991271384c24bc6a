"""A forward call over whole prompts that drops visual tokens at layers inside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from transformers import Cache
from transformers.masking_utils import create_causal_mask

from llava.model.splice import Spliced
from llava.model.text import Question
from llava.pruning.decode import Segment
from llava.pruning.observed import HALVES, Observed
from llava.pruning.pick import Alive, Decision, decide
from llava.pruning.probe import Layers
from llava.pruning.rows import as_rows, stacked, take_positions
from otprune import LayerPruner, Merger
from otprune.pruning.image_tokens import ImageTokens
from otprune.pruning.settings import Pruning
from otprune.pruning.trace import Trace, watched

__all__ = ["HALVES", "LayerPlan", "PrefillRun"]


@dataclass(frozen=True)
class LayerPlan:
    """What is needed inside the language model to prune a batch of prompts.

    Attributes:
        pruning: the settings.
        batch: the prompts as they enter layer 0.
        images: visual tokens of each image before any pruning.
        image_ids: names of the images, for seeded methods.
        questions: of each prompt.
        budgets: for each image how many tokens are left from which layers on.
        trace: filled if given.
        key: tells a cache's own plan from another one without holding on to its tensors.
    """

    pruning: Pruning
    batch: Spliced
    images: Sequence[ImageTokens]
    image_ids: Sequence[int | None]
    questions: Sequence[Question]
    budgets: Sequence[dict[int, int]]
    trace: Trace | None = None
    key: object = field(default_factory=object)

    @property
    def layers(self) -> frozenset[int]:
        """Layers inside the language model at whose input something is dropped."""
        return frozenset(layer for budget in self.budgets for layer in budget if layer)

    @property
    def wants_signals(self) -> bool:
        """Whether methods are told about the images' tokens, which are no more after a merger."""
        return bool(self.pruning.needs) and not isinstance(self.pruning.before, Merger)


class PrefillRun:
    """One forward call over whole prompts."""

    def __init__(self, text_model: Any, plan: LayerPlan, cache: Cache | None, new: int) -> None:
        rows, length = plan.batch.image_of.shape
        if new != length:
            raise ValueError(
                "pruning inside the language model needs the whole prompt in one call: "
                f"{length} positions, got {new}"
            )
        self.text_model, self.plan, self.cache = text_model, plan, cache
        self.at = plan.layers
        pruner = plan.pruning.pruner
        last = max(self.at, default=0)
        self.observed = frozenset[int]()
        if pruner is not None:
            self.observed = frozenset(layer for layer in pruner.observes if layer < last)
        self.looks_back = pruner is not None and pruner.looks_back
        origin = torch.arange(length).expand(rows, -1)
        padding = plan.batch.attention_mask.cpu() == 0
        self.alive = Alive(
            origin=origin.masked_fill(padding, -1),
            image_of=plan.batch.image_of.masked_fill(padding, -1),
            token_of=plan.batch.token_of,
            question=plan.batch.question & ~padding,
        )
        self.swapped: dict[str, Any] = {}
        self.halves = Observed(pruner)
        self.started: dict[int, Any] = {}
        self.before: Layers | None = None
        self.segments: list[Segment] = []
        self.lengths: list[list[int]] = []

    def enter(
        self, number: int, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the hidden states and the changed arguments of a layer."""
        pruner = self.plan.pruning.pruner
        if number == 0 and pruner is not None and pruner.starts:
            self._start(pruner, hidden, kwargs)
        if number in self.at:
            hidden = self._drop(number, hidden, kwargs)
        self.lengths.append(self.alive.lengths)
        if self.looks_back and number + 1 in self.at:
            self.before = self._layers(number, hidden, kwargs)
        return hidden, self.swapped

    def leave_half(self, number: int, name: str, given: Tensor, output: Tensor) -> None:
        """Take note of what went into a half of a layer and came out."""
        repeats = len(given) // len(self.alive.origin)
        with watched(self.plan.trace):
            # Nothing may be chosen by a given answer.
            seen = self.alive.valid & ~self.alive.at(self.plan.batch.answer)
            self.halves.note(number, name, given[::repeats], output[::repeats], seen)

    def finish(self) -> None:
        """Tell the caller what was done.

        Raises:
            RuntimeError: the layers were not told, as in compiled code: nothing was pruned.
        """
        if len(self.segments) < len(self.at):
            raise RuntimeError(
                "pruning inside the language model was not carried out: its layers were called "
                "without their hooks (torch.compile?)"
            )
        self.before = None
        if self.plan.trace is not None:
            self.plan.trace.lengths[:] = self.lengths

    def labels(self, labels: Int64[Tensor, "b t"], ignore: int) -> Int64[Tensor, "b t"]:
        """Return the labels of what is left after the last layer."""
        origin = self.alive.origin.to(labels.device)
        return labels.gather(1, origin.clamp(min=0)).masked_fill(origin < 0, ignore)

    def _layers(self, number: int, hidden: Tensor, kwargs: dict[str, Any]) -> Layers:
        seen = {**kwargs, **self.swapped}
        cos, sin = seen["position_embeddings"]
        return Layers(
            self.text_model,
            number,
            hidden,
            (as_rows(cos, len(hidden)), as_rows(sin, len(hidden))),
            as_rows(seen["position_ids"], len(hidden)),
        )

    def _start(self, pruner: LayerPruner, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        layers = self._layers(0, hidden, kwargs)
        with watched(self.plan.trace):
            for row, image, view in self.alive.views(self.plan, layers, None, {}, None):
                del row
                self.started[image] = pruner.start(view)

    def _drop(self, number: int, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """Gather what stays at a layer, and everything that travels with it."""
        before, side = self.alive, self.plan.batch.side
        layers = self._layers(number, hidden, kwargs)
        with watched(self.plan.trace):
            decision = decide(
                self.plan, before, layers, self.before, self.started, self.halves.total
            )
        if not all(len(pick) for pick in decision.picks):
            raise ValueError(f"a prompt without text has nothing left at layer {number}")
        merged = decision.merged
        repeats = len(hidden) // len(before.origin)
        if merged is not None:
            # Merged tokens stand behind the others until they are gathered into their places.
            hidden = torch.cat([hidden, merged.repeat_interleave(repeats, 0).to(hidden)], dim=1)
        index, valid = stacked(decision.picks, side)
        self.alive = before.gather(index, valid, decision)
        self.halves.gather(index, valid, hidden.shape[1])
        index, valid = (t.repeat_interleave(repeats, 0) for t in (index, valid))
        hidden = take_positions(hidden, index)
        kept_mask = None if bool(valid.all()) else valid.to(hidden.device)
        position_ids, angles, shift = self._placed(
            number, hidden, layers, index, valid, kwargs, decision
        )
        # position_ids stay out of the mask: gaps would be taken for packed sequences.
        mask = create_causal_mask(
            config=self.text_model.config,
            inputs_embeds=hidden,
            attention_mask=kept_mask,
            past_key_values=self.cache,
            position_ids=None,
            layer_idx=number,
        )
        self.swapped = {
            "attention_mask": mask,
            "position_ids": position_ids,
            "position_embeddings": angles,
        }
        self.segments.append(Segment(number, kept_mask, index.shape[1], shift))
        self._tell(number, decision)
        return hidden

    def _placed(
        self,
        number: int,
        hidden: Tensor,
        layers: Layers,
        index: Tensor,
        valid: Tensor,
        kwargs: dict[str, Any],
        decision: Decision,
    ) -> tuple[Tensor, Any, Tensor | None]:
        """Return rotary positions and angles of what stays, and how far positions lag behind."""
        if self.plan.pruning.positions_at(number) == "compact":
            unpruned = as_rows(kwargs["position_ids"], len(hidden))
            position_ids = (valid.cumsum(1) - 1).masked_fill(~valid, 0).to(unpruned.device)
            shift = (unpruned.amax(1) - position_ids.amax(1))[:, None]
            return (
                position_ids,
                self.text_model.rotary_emb(hidden, position_ids=position_ids),
                shift,
            )
        if decision.merged is not None:
            # A merged token takes the position of the token in front of it.
            index = torch.where(index < layers.positions.shape[1], index, -1).cummax(1).values
            index = index.clamp(min=0)
        position_ids = take_positions(layers.positions, index)
        angles = tuple(take_positions(one, index) for one in layers.angles)
        return position_ids, angles, None

    def _tell(self, number: int, decision: Decision) -> None:
        if self.plan.trace is None:
            return
        # An image that was cut off with the end of its prompt has nothing left to keep.
        kept = [torch.empty(0, dtype=torch.long) for _ in self.plan.images]
        for image, numbers in decision.kept.items():
            kept[image] = numbers
        self.plan.trace.kept[number] = kept
        if decision.scores:
            scores = [decision.scores.get(image) for image in range(len(kept))]
            self.plan.trace.scores[number] = scores
