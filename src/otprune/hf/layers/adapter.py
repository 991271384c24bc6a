"""The parts of a decoder that pruning inside it needs, under the same names for every family."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import Cache
from transformers.masking_utils import create_causal_mask

from otprune.cost import DecoderShape

Angles = tuple[Float[Tensor, "*b t c"], Float[Tensor, "*b t c"]]
"""Cosines and sines of rotary angles."""


def decoder_shape(config: Any) -> DecoderShape:
    """Return the sizes of the decoder that a transformers text configuration describes."""
    return DecoderShape(
        hidden=config.hidden_size,
        feed_forward=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=getattr(config, "num_key_value_heads", None),
        head_dim=getattr(config, "head_dim", None),
    )


class DecoderAdapter:
    """A transformers decoder as pruning inside it sees it.

    This class serves decoders with the names of transformers' Llama: Llama, Mistral, Qwen2, Qwen3,
    and the text models of Qwen2-VL and Qwen2.5-VL. A family that names or computes something
    otherwise overrides the method in question. Layers must take the keyword arguments
    ``attention_mask``, ``position_embeddings`` and, if at all, ``position_ids``.

    Args:
        decoder: the module whose forward call runs the decoder layers, such as `LlamaModel`.

    Raises:
        ValueError: a layer whose attention is not full: a sliding window counts cached positions,
            of which pruned layers have fewer.
    """

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        kinds = getattr(decoder.config, "layer_types", None) or []
        window = getattr(decoder.config, "sliding_window", None)
        if not kinds and window is not None:
            raise ValueError(
                f"every decoder layer must have full attention, got a sliding window of {window}"
            )
        others = [number for number, kind in enumerate(kinds) if kind != "full_attention"]
        if others:
            raise ValueError(
                f"every decoder layer must have full attention, got {kinds[others[0]]} at layers "
                f"{', '.join(map(str, others))}"
            )

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder layers in the order in which they run."""
        return self.decoder.layers

    @property
    def shape(self) -> DecoderShape:
        """Sizes of the decoder."""
        return decoder_shape(self.decoder.config)

    def attention(self, layer: int) -> Any:
        """Return the attention module of a layer."""
        return self.decoder.layers[layer].self_attn

    def feed_forward(self, layer: int) -> Any:
        """Return the feed-forward module of a layer."""
        return self.decoder.layers[layer].mlp

    def attention_input(
        self, layer: int, hidden: Float[Tensor, "*b t d"]
    ) -> Float[Tensor, "*b t d"]:
        """Return what a layer hands its attention module: its normalised input."""
        return self.decoder.layers[layer].input_layernorm(hidden)

    def queries(
        self, layer: int, normed: Float[Tensor, "*b t d"], angles: Angles
    ) -> Float[Tensor, "*b h t c"]:
        """Return a layer's queries, rotated, from the input of its attention module."""
        attention = self.attention(layer)
        norm = getattr(attention, "q_norm", None)
        return self._heads(_product(attention.q_proj, normed), attention.head_dim, norm, angles)

    def keys(
        self, layer: int, normed: Float[Tensor, "*b t d"], angles: Angles
    ) -> Float[Tensor, "*b g t c"]:
        """Return a layer's keys, rotated; g key-value heads, each shared by h / g query heads."""
        attention = self.attention(layer)
        norm = getattr(attention, "k_norm", None)
        return self._heads(_product(attention.k_proj, normed), attention.head_dim, norm, angles)

    def attention_scores(
        self, layer: int, queries: Float[Tensor, "h r c"], keys: Float[Tensor, "g t c"]
    ) -> Float[Tensor, "h r t"]:
        """Return the scaled products of queries and keys before the softmax, in float32."""
        shared = keys.repeat_interleave(len(queries) // len(keys), 0)
        return (queries @ shared.transpose(1, 2)).float() * self.attention(layer).scaling

    def rotate(
        self, vectors: Float[Tensor, "*b t c"], cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "*b t c"]:
        """Apply rotary angles to the channels of a head."""
        first, second = vectors.chunk(2, dim=-1)
        return vectors * cos + torch.cat([-second, first], dim=-1) * sin

    def rotary_angles(self, hidden: Tensor, positions: Int64[Tensor, "b t"]) -> Angles:
        """Return the angles of rotary positions, in the dtype and on the device of ``hidden``."""
        return self.decoder.rotary_emb(hidden, position_ids=positions)

    def final_norm(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Apply the norm that follows the last layer."""
        return self.decoder.norm(hidden)

    def causal_mask(
        self,
        layer: int,
        hidden: Float[Tensor, "b t d"],
        valid: Bool[Tensor, "b s"] | None,
        cache: Cache | None,
    ) -> Any:
        """Return the attention mask of a layer, in the form that the model's attention takes.

        Args:
            layer: whose cache tells how many positions precede ``hidden``.
            hidden: the layer's input.
            valid: which positions, cached ones included, are no padding; None if all are.
            cache: keys and values of the call.
        """
        return create_causal_mask(
            config=self.decoder.config,
            inputs_embeds=hidden,
            attention_mask=valid,
            past_key_values=cache,
            # Left out: the gaps that pruning leaves would be taken for packed sequences.
            position_ids=None,
            layer_idx=layer,
        )

    def _heads(self, projected: Tensor, width: int, norm: Any, angles: Angles) -> Tensor:
        heads = projected.unflatten(-1, (-1, width))
        if norm is not None:
            heads = norm(heads)
        cos, sin = (one.unsqueeze(-3) for one in angles)
        return self.rotate(heads.transpose(-3, -2), cos, sin)


def _product(linear: Any, vectors: Tensor) -> Tensor:
    """Apply a projection; under `torch.autocast` its input may have another dtype than it has."""
    dtype = linear.weight.dtype
    return linear(vectors.to(dtype) if dtype.is_floating_point else vectors)
