"""A forward call that appends positions to prompts which were pruned inside the decoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from transformers import Cache

from otprune.hf.layers.adapter import DecoderAdapter
from otprune.hf.layers.rows import as_rows
from otprune.precision import new_tensors_on_cpu


@dataclass(frozen=True)
class Segment:
    """The layers from one stage to the next: what their cached prompt looks like.

    Attributes:
        layer: first layer.
        source: which position of the whole prompt each cached one was, any at padding; [b t].
        entered: positions of the whole prompt, padding included.
        valid: which cached positions of the prompt are no padding, [b t]; None if all are.
        length: cached positions of the prompt.
        shift: by how much compact positions are below the unpruned ones, [b 1]; None where
            positions are original.
    """

    layer: int
    source: Int64[Tensor, "b t"]
    entered: int
    valid: Bool[Tensor, "b t"] | None
    length: int
    shift: Int64[Tensor, "b 1"] | None


class DecodeRun:
    """One forward call that appends positions to a pruned prefill.

    Args:
        adapter: the decoder.
        segments: what the prefill recorded.
        cache: keys and values.
        new: positions of the call.
    """

    @new_tensors_on_cpu()
    def __init__(
        self, adapter: DecoderAdapter, segments: Sequence[Segment], cache: Cache, new: int
    ) -> None:
        self.adapter = adapter
        self.segments = {segment.layer: segment for segment in segments}
        self.cache = cache
        self.new = new
        self.segment: Segment | None = None
        self.replaced: dict[str, dict[str, Any]] = {}
        self.entered = 0

    def restart(self) -> None:
        """Let the layers be entered once more from the first, at the same step."""
        self.segment, self.replaced = None, {}

    @new_tensors_on_cpu()
    def finish(self) -> None:
        """Check that the hooks of every segment ran.

        Raises:
            RuntimeError: they did not, as in compiled code.
        """
        if self.entered < len(self.segments):
            raise RuntimeError(
                "decoding after pruning inside the language model went past its hooks "
                "(torch.compile?)"
            )

    @new_tensors_on_cpu()
    def enter(
        self, layer: int, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the hidden states and the replaced arguments of a layer."""
        begun = self.segments.get(layer)
        if begun is not None:
            self.entered += 1
            self.segment, self.replaced = begun, {}
        if self.segment is None:
            return hidden, {}
        kind = self.adapter.kind(layer)
        if kind not in self.replaced:
            self.replaced[kind] = self._arguments(layer, self.segment, hidden, kwargs)
        return hidden, self.replaced[kind]

    def _arguments(
        self, layer: int, segment: Segment, hidden: Tensor, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        more = self.cache.get_seq_length(layer) - segment.length + self.new
        source = segment.source.to(hidden.device)
        added = torch.arange(more, device=source.device) + segment.entered
        source = torch.cat([source, added.expand(len(source), -1)], dim=1)
        valid = None
        if segment.valid is not None:
            prompt = segment.valid.to(hidden.device)
            valid = torch.cat([prompt, prompt.new_ones(len(prompt), more)], dim=1)
        mask = self.adapter.mask_of_decoding(
            layer, hidden, kwargs.get("attention_mask"), source, valid, self.cache
        )
        replaced: dict[str, Any] = {"attention_mask": mask}
        if segment.shift is not None:
            positions = as_rows(kwargs["position_ids"], len(hidden)).to(hidden.device)
            positions = positions - segment.shift.to(hidden.device)
            replaced["position_ids"] = positions
            replaced["position_embeddings"] = self.adapter.rotary_angles(layer, hidden, positions)
        return replaced
