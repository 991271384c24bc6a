"""A forward call that appends to prompts which were pruned inside the language model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from transformers import Cache
from transformers.masking_utils import create_causal_mask

from llava.pruning.rows import as_rows


@dataclass(frozen=True)
class Segment:
    """Layers from a stage to the next: what their cached prompt looks like.

    Attributes:
        layer: first layer.
        valid: which cached positions of the prompt are no padding, [b t]; None if all are.
        length: cached positions of the prompt.
        shift: by how much compact positions lag behind the unpruned ones, [b 1]; None if they are
            kept.
    """

    layer: int
    valid: Bool[Tensor, "b t"] | None
    length: int
    shift: Int64[Tensor, "b 1"] | None


class DecodeRun:
    """One forward call that appends positions to a pruned prefill."""

    def __init__(
        self, text_model: Any, segments: Sequence[Segment], cache: Cache, new: int
    ) -> None:
        self.text_model = text_model
        self.segments = {segment.layer: segment for segment in segments}
        self.cache = cache
        self.new = new
        self.swapped: dict[str, Any] = {}
        self.entered = 0

    def finish(self) -> None:
        """Check that every segment was told.

        Raises:
            RuntimeError: it was not, as in compiled code.
        """
        if self.entered < len(self.segments):
            raise RuntimeError(
                "decoding after pruning inside the language model went past its hooks "
                "(torch.compile?)"
            )

    def enter(
        self, number: int, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the hidden states and the changed arguments of a layer."""
        segment = self.segments.get(number)
        if segment is not None:
            self.entered += 1
            self.swapped = self._arguments(segment, hidden, kwargs)
        return hidden, self.swapped

    def _arguments(
        self, segment: Segment, hidden: Tensor, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        valid = None
        if segment.valid is not None:
            decoded = self.cache.get_seq_length(segment.layer) - segment.length
            old = segment.valid.to(hidden.device)
            valid = torch.cat([old, old.new_ones(len(old), decoded + self.new)], dim=1)
        changes: dict[str, Any] = {
            "attention_mask": create_causal_mask(
                config=self.text_model.config,
                inputs_embeds=hidden,
                attention_mask=valid,
                past_key_values=self.cache,
                position_ids=None,
                layer_idx=segment.layer,
            )
        }
        if segment.shift is not None:
            places = as_rows(kwargs["position_ids"], len(hidden)).to(hidden.device)
            places = places - segment.shift.to(hidden.device)
            changes["position_ids"] = places
            changes["position_embeddings"] = self.text_model.rotary_emb(hidden, position_ids=places)
        return changes
