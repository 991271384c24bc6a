"""A forward call over whole prompts that drops visual tokens at the input of some layers."""

from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from transformers import Cache

from otprune.hf.layers.adapter import DecoderAdapter
from otprune.hf.layers.decode import Segment
from otprune.hf.layers.observed import Module, Observed
from otprune.hf.layers.plan import LayerPlan
from otprune.hf.layers.probe import LayerInput
from otprune.hf.layers.remaining import KeptPositions, RemainingTokens, StageInput
from otprune.hf.layers.rows import as_rows, stacked, take_last_axis, take_positions
from otprune.layer_pruner import LayerPruner
from otprune.precision import new_tensors_on_cpu, without_outer_settings
from otprune.pruning.trace import watched


class PrefillRun:
    """One forward call over whole prompts.

    Args:
        adapter: the decoder.
        plan: what to prune.
        cache: keys and values that the call fills, if any.
        new: positions of the call.

    Raises:
        ValueError: not all positions of the prompts in one call; compact positions under multimodal
            rotary embedding, where there is no one axis to renumber.
    """

    @new_tensors_on_cpu()
    def __init__(
        self, adapter: DecoderAdapter, plan: LayerPlan, cache: Cache | None, new: int
    ) -> None:
        length = plan.batch.image_of.shape[1]
        if new != length:
            raise ValueError(
                "pruning inside the language model needs the whole prompt in one call: "
                f"{length} positions, got {new}"
            )
        self.adapter, self.plan, self.cache = adapter, plan, cache
        self.at = plan.layers
        shape = tuple(plan.batch.position_ids.shape)
        if len(shape) != 2 and any(plan.pruning.positions_at(at) == "compact" for at in self.at):
            raise ValueError(
                "positions must be 'original' under multimodal rotary embedding, got 'compact', "
                f"which renumbers one axis, for position_ids of shape {shape}"
            )
        pruner = plan.pruning.pruner
        last = max(self.at, default=0)
        self.observed_layers = frozenset[int]()
        if pruner is not None:
            self.observed_layers = frozenset(layer for layer in pruner.observes if layer < last)
        self.looks_back = pruner is not None and pruner.looks_back
        self.remaining = RemainingTokens.at_first(plan.batch)
        self.last_position = self.remaining.positions.amax(-1, keepdim=True)
        self.source: Int64[Tensor, "b u"] | None = None
        self.renumbered = False
        self.replaced: dict[str, dict[str, Any]] = {}
        self.observed = Observed(pruner)
        self.started: dict[int, Any] = {}
        self.before: LayerInput | None = None
        self.segments: list[Segment] = []
        self.lengths: list[list[int]] = []

    @new_tensors_on_cpu()
    def enter(
        self, layer: int, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the hidden states and the replaced arguments of a layer.

        Raises:
            RuntimeError: a layer entered out of turn, as when hooks are installed twice.
        """
        if layer != len(self.lengths):
            raise RuntimeError(
                f"decoder layers must run once and in order, got layer {layer} after "
                f"{len(self.lengths)} layers (hooks installed twice?)"
            )
        pruner = self.plan.pruning.pruner
        if layer == 0 and pruner is not None and pruner.starts:
            self._start(pruner, hidden, kwargs)
        if layer in self.at:
            hidden = self._drop(layer, hidden, kwargs)
        self.lengths.append(self.remaining.lengths)
        if self.looks_back and layer + 1 in self.at:
            self.before = self._inputs(layer, hidden, kwargs)
        return hidden, self._replaced(layer, hidden, kwargs)

    @new_tensors_on_cpu()
    def leave_module(self, layer: int, module: Module, given: Tensor, output: Tensor) -> None:
        """Let the method observe the input and output of a layer's module."""
        repeats = len(given) // len(self.remaining.origin)
        with watched(self.plan.trace):
            # Nothing may be chosen by a given answer.
            valid = self.remaining.valid & ~self.remaining.marked(self.plan.batch.answer)
            added = self.adapter.added(layer, module, output[::repeats])
            self.observed.add(layer, module, given[::repeats], added, valid)

    @new_tensors_on_cpu()
    def finish(self) -> None:
        """Complete the trace.

        Raises:
            RuntimeError: nothing was pruned since the hooks did not run, as in compiled code.
        """
        if len(self.segments) < len(self.at):
            raise RuntimeError(
                "pruning inside the language model was not carried out: its layers were called "
                "without their hooks (torch.compile?)"
            )
        self.before = None
        if self.plan.trace is not None:
            self.plan.trace.lengths[:] = self.lengths

    @new_tensors_on_cpu()
    def labels(self, labels: Int64[Tensor, "b t"], ignore: int) -> Int64[Tensor, "b u"]:
        """Return the labels of the positions that remain after the last layer.

        Args:
            labels: of the prompts as they entered the decoder.
            ignore: label of padding and merged tokens.
        """
        origin = self.remaining.origin.to(labels.device)
        return labels.gather(1, origin.clamp(min=0)).masked_fill(origin < 0, ignore)

    def _inputs(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> LayerInput:
        seen = {**kwargs, **self._replaced(layer, hidden, kwargs)}
        cos, sin = seen["position_embeddings"]
        angles = (as_rows(cos, len(hidden)), as_rows(sin, len(hidden)))
        mask = self.adapter.beyond_causal(layer, seen.get("attention_mask"))
        return LayerInput(self.adapter, layer, hidden, angles, mask)

    def _replaced(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments that are others since a stage; layers of a kind have the same."""
        if self.source is None:
            return {}
        kind = self.adapter.kind(layer)
        if kind not in self.replaced:
            self.replaced[kind] = self._arguments(layer, hidden, kwargs, self.source)
        return self.replaced[kind]

    def _arguments(
        self, layer: int, hidden: Tensor, kwargs: dict[str, Any], source: Int64[Tensor, "b u"]
    ) -> dict[str, Any]:
        repeats = len(hidden) // len(source)
        source = source.repeat_interleave(repeats, 0).to(hidden.device)
        valid = self.segments[-1].valid
        given = kwargs.get("attention_mask")
        mask = self.adapter.mask_of_kept(layer, hidden, given, source, valid, self.cache)
        replaced: dict[str, Any] = {"attention_mask": mask}
        if self.renumbered:
            positions = self.remaining.positions.repeat_interleave(repeats, 0).to(hidden.device)
            angles = self.adapter.rotary_angles(layer, hidden, positions)
            return {**replaced, "position_ids": positions, "position_embeddings": angles}
        # What is kept has the positions and angles that it had before.
        if kwargs.get("position_ids") is not None:
            replaced["position_ids"] = take_last_axis(kwargs["position_ids"], source)
        whole = (as_rows(one, len(hidden)) for one in kwargs["position_embeddings"])
        replaced["position_embeddings"] = tuple(take_positions(one, source) for one in whole)
        return replaced

    def _start(self, pruner: LayerPruner, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        stage = StageInput(self.plan, self.remaining, self._inputs(0, hidden, kwargs))
        with watched(self.plan.trace), without_outer_settings():
            self.started = {image: pruner.start(view) for _, image, view in stage.views()}

    def _drop(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """Gather the kept positions of the hidden states, and everything that belongs to them."""
        inputs = self._inputs(layer, hidden, kwargs)
        stage = StageInput(
            self.plan, self.remaining, inputs, self.before, self.started, self.observed.total
        )
        with watched(self.plan.trace):
            kept = stage.choose()
        if not all(len(pick) for pick in kept.picks):
            raise ValueError(f"a prompt without text has nothing left at layer {layer}")
        repeats = stage.repeats
        if kept.merged is not None:
            # Merged tokens are appended, then gathered into their places with the others.
            merged = kept.merged.repeat_interleave(repeats, 0).to(hidden)
            hidden = torch.cat([hidden, merged], dim=1)
        index, valid = stacked(kept.picks, self.plan.batch.side)
        source = _source(index, inputs.hidden.shape[1])
        compact = self.plan.pruning.positions_at(layer) == "compact"
        if compact:
            positions = (valid.cumsum(1) - 1).masked_fill(~valid, 0)
        else:
            positions = take_last_axis(self.remaining.positions, source)
        self.remaining = self.remaining.gather(index, valid, kept, positions)
        self.observed.gather(index, valid, hidden.shape[1])
        self.source = source if self.source is None else self.source.gather(1, source)
        shift = self._shift(positions, kwargs) if compact else None
        index, of_all, valid, *shifts = (
            one.repeat_interleave(repeats, 0)
            for one in (index, self.source, valid, *([] if shift is None else [shift]))
        )
        hidden = take_positions(hidden, index)
        self.replaced = {}
        self.segments.append(
            Segment(
                layer=layer,
                source=of_all.to(hidden.device),
                entered=self.plan.batch.image_of.shape[1],
                valid=None if bool(valid.all()) else valid.to(hidden.device),
                length=index.shape[1],
                shift=shifts[0].to(hidden.device) if shifts else None,
            )
        )
        self._record(layer, kept)
        return hidden

    def _shift(self, positions: Tensor, kwargs: dict[str, Any]) -> Int64[Tensor, "b 1"]:
        """Return by how much compact positions are below the unpruned ones."""
        if kwargs.get("position_ids") is None:
            raise ValueError(
                "positions must be 'original' for a decoder whose layers are not given rotary "
                "positions, got 'compact'"
            )
        self.renumbered = True
        return self.last_position - positions.amax(1, keepdim=True)

    def _record(self, layer: int, kept: KeptPositions) -> None:
        if self.plan.trace is None:
            return
        # An image that was cut off with the end of its prompt keeps nothing.
        numbers = [torch.empty(0, dtype=torch.long) for _ in self.plan.images]
        for image, found in kept.kept.items():
            numbers[image] = found
        self.plan.trace.kept[layer] = numbers
        if kept.scores:
            scores = [kept.scores.get(image) for image in range(len(numbers))]
            self.plan.trace.scores[layer] = scores


def _source(index: Int64[Tensor, "b t"], length: int) -> Int64[Tensor, "b t"]:
    """Return where each kept position takes its rotary position from.

    That is itself; a merged token, beyond ``length``, takes the position of the token in front.
    """
    if int(index.max()) < length:
        return index
    return torch.where(index < length, index, -1).cummax(1).values.clamp(min=0)
