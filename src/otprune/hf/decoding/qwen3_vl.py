"""One decoding step of transformers' Qwen3-VL."""

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Int64
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLTextAttention,
    Qwen3VLTextDecoderLayer,
    Qwen3VLTextMLP,
    Qwen3VLTextModel,
    Qwen3VLTextRMSNorm,
)

from otprune.hf.decoding.llama import LlamaStep


class Qwen3VLStep(LlamaStep):
    """Llama's step with norms of queries and keys, and rotary positions of three axes.

    Visual features are added in front of the prompt's answer only, so they have no part here.
    """

    model: ClassVar[type] = Qwen3VLTextModel
    classes: ClassVar[Sequence[type]] = (
        Qwen3VLTextDecoderLayer,
        Qwen3VLTextAttention,
        Qwen3VLTextMLP,
        Qwen3VLTextRMSNorm,
    )
    attention_norms: ClassVar[bool] = True

    def positions(self, given: Int64[Tensor, "*m b 1"]) -> tuple[Tensor | None, Tensor]:
        """Return the positions that layers are given, [b 1], and those that angles follow from."""
        if given.ndim == 2:
            return given, given[None].expand(3, -1, -1)
        if len(given) == 4:
            return given[0], given[1:]
        return None, given
