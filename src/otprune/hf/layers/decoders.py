"""Decoders that differ from Llama, and which types of transformers are known at all."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.hf.layers.adapter import Angles, DecoderAdapter
from otprune.hf.layers.observed import Module


class Interleaved(DecoderAdapter):
    """Rotary angles belong to neighbouring channels, and maybe to the first channels only.

    Cohere and GLM. Rotation is in the dtype of the vectors, or in float32 with ``in_float32``.
    """

    in_float32: ClassVar[bool] = False

    def rotate(
        self, vectors: Float[Tensor, "*b t c"], cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "*b t c"]:
        """Apply rotary angles to the first channels of a head, pair by pair."""
        count = cos.shape[-1]
        turned, rest = vectors[..., :count], vectors[..., count:]
        if self.in_float32:
            turned = turned.float()
        pairs = torch.stack([-turned[..., 1::2], turned[..., ::2]], dim=-1).flatten(-2)
        return torch.cat([(turned * cos + pairs * sin).to(vectors.dtype), rest], dim=-1)


class Cohere(Interleaved):
    """Cohere: a layer's attention and feed-forward network have the same input."""

    in_float32: ClassVar[bool] = True


class Cohere2(Cohere):
    """Cohere 2 (Aya Vision, Command A Vision): only layers with a sliding window rotate."""

    def rotates(self, layer: int) -> bool:
        """Return whether a layer has a sliding window."""
        return self.window(layer) is not None


class Glm4vText(Interleaved):
    """GLM-4V: norms also behind the modules of a layer."""

    def added(self, layer: int, module: Module, output: Tensor) -> Tensor:
        """Return what a layer adds to its input: a module's output, normed."""
        block: Any = self.layers[layer]
        attention = module == "attention"
        return (block.post_self_attn_layernorm if attention else block.post_mlp_layernorm)(output)


class Glm(Interleaved):
    """GLM, whose table of angles has them once, then once more, and not pair by pair."""

    def rotate(
        self, vectors: Float[Tensor, "*b t c"], cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "*b t c"]:
        """Apply rotary angles to the first channels of a head, pair by pair."""
        cos, sin = (one.chunk(2, dim=-1)[0].repeat_interleave(2, -1) for one in (cos, sin))
        return super().rotate(vectors, cos, sin)


class Glm4(Glm, Glm4vText):
    """GLM-4: as GLM, and norms also behind the modules of a layer."""


class Gemma2(DecoderAdapter):
    """Gemma 2: sliding windows in turn, capped scores, norms also behind the modules of a layer."""

    sees_blocks: ClassVar[bool] = True

    def added(self, layer: int, module: Module, output: Tensor) -> Tensor:
        """Return what a layer adds to its input: a module's output, normed."""
        block: Any = self.layers[layer]
        attention = module == "attention"
        norm = block.post_attention_layernorm if attention else block.post_feedforward_layernorm
        return norm(output)

    def attention_scores(
        self, layer: int, queries: Float[Tensor, "h r c"], keys: Float[Tensor, "g t c"]
    ) -> Float[Tensor, "h r t"]:
        """Return the scaled products, capped."""
        scores = super().attention_scores(layer, queries, keys)
        cap = self.attention(layer).attn_logit_softcapping
        return scores if cap is None else torch.tanh(scores / cap) * cap


class Gemma3(Gemma2):
    """Gemma 3: two tables of rotary angles, norms of queries and keys, images that see themselves.

    The tokens of an image that are left see each other, as before.
    """

    def attention_scores(
        self, layer: int, queries: Float[Tensor, "h r c"], keys: Float[Tensor, "g t c"]
    ) -> Float[Tensor, "h r t"]:
        """Return the scaled products; they are not capped."""
        return DecoderAdapter.attention_scores(self, layer, queries, keys)

    def rotary_angles(self, layer: int, hidden: Tensor, positions: Int64[Tensor, "b t"]) -> Angles:
        """Return the angles of the layer's kind."""
        return self.decoder.rotary_emb(hidden, positions, self.kind(layer))


ADAPTERS: dict[str, type[DecoderAdapter]] = {
    "aria_text": DecoderAdapter,
    "cohere": Cohere,
    "cohere2": Cohere2,
    "gemma2": Gemma2,
    "gemma3_text": Gemma3,
    "glm": Glm,
    "glm4": Glm4,
    "glm4v_text": Glm4vText,
    "llama": DecoderAdapter,
    "mistral": DecoderAdapter,
    "paddleocr_vl_text": DecoderAdapter,
    "qwen2": DecoderAdapter,
    "qwen2_5_vl_text": DecoderAdapter,
    "qwen2_moe": DecoderAdapter,
    "qwen2_vl_text": DecoderAdapter,
    "qwen3": DecoderAdapter,
    "qwen3_moe": DecoderAdapter,
    "qwen3_vl_moe_text": DecoderAdapter,
    "qwen3_vl_text": DecoderAdapter,
    "smollm3": DecoderAdapter,
}
"""Types of decoders that can be pruned inside, and what computes attention, norms and angles."""
