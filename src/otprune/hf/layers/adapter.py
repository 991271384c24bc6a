"""The parts of a decoder that pruning inside it needs, under the same names for every family."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import Cache
from transformers.masking_utils import create_causal_mask

from otprune.cost import DecoderShape
from otprune.hf.layers.masks import dropped_mask, window_mask
from otprune.hf.layers.observed import Module
from otprune.hf.versions import CACHE

_PLAIN = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_KINDS = ("full_attention", "sliding_attention")

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
    otherwise overrides the method in question; `otprune.hf.layers.decoders` has them. Layers must
    take the keyword arguments ``attention_mask``, ``position_embeddings`` and, if at all,
    ``position_ids``.

    Layers may have full attention or a sliding window. A window goes on counting the positions that
    the prompt had before anything was dropped, so that dropping a token is hiding it.

    Args:
        decoder: the module whose forward call runs the decoder layers, such as `LlamaModel`.

    Attributes:
        sees_blocks: whether the model may let the tokens of an image see each other.

    Raises:
        ValueError: a layer whose attention is neither.
    """

    sees_blocks: ClassVar[bool] = False

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        config = decoder.config
        kinds = list(getattr(config, "layer_types", None) or [])
        if not kinds:
            windowed = getattr(config, "sliding_window", None) is not None
            kind = "sliding_attention" if windowed else "full_attention"
            kinds = [kind] * config.num_hidden_layers
        others = [number for number, kind in enumerate(kinds) if kind not in _KINDS]
        if others:
            raise ValueError(
                f"every decoder layer must have {' or '.join(_KINDS)}, got {kinds[others[0]]} at "
                f"layers {', '.join(map(str, others))}"
            )
        self._kinds = kinds

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

    def kind(self, layer: int) -> str:
        """Return the kind of a layer; layers of a kind are given the same mask and angles."""
        return self._kinds[layer]

    def window(self, layer: int) -> int | None:
        """Return how many positions, itself included, a position of a layer sees; None for all."""
        sliding = self._kinds[layer] == "sliding_attention"
        return int(self.decoder.config.sliding_window) if sliding else None

    def rotates(self, layer: int) -> bool:
        """Return whether a layer applies rotary angles to queries and keys."""
        return bool(getattr(self.attention(layer), "use_rope", True))

    def added(self, layer: int, module: Module, output: Tensor) -> Tensor:
        """Return what a layer adds to its input, given the output of one of its modules."""
        return output

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
        return self._heads(
            layer, attention.q_proj, getattr(attention, "q_norm", None), normed, angles
        )

    def keys(
        self, layer: int, normed: Float[Tensor, "*b t d"], angles: Angles
    ) -> Float[Tensor, "*b g t c"]:
        """Return a layer's keys, rotated; g key-value heads, each shared by h / g query heads."""
        attention = self.attention(layer)
        return self._heads(
            layer, attention.k_proj, getattr(attention, "k_norm", None), normed, angles
        )

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

    def rotary_angles(self, layer: int, hidden: Tensor, positions: Int64[Tensor, "b t"]) -> Angles:
        """Return a layer's angles of rotary positions, in dtype and on the device of ``hidden``."""
        return self.decoder.rotary_emb(hidden, position_ids=positions)

    def channel_angles(self, layer: int, angles: Angles) -> Angles:
        """Return angles for all channels of a head: none where a layer does not rotate them."""
        cos, sin = angles
        if not self.rotates(layer):
            cos, sin = cos[..., :0], sin[..., :0]
        rest = self.attention(layer).head_dim - cos.shape[-1]
        return (
            torch.cat([cos, cos.new_ones(*cos.shape[:-1], rest)], -1),
            torch.cat([sin, sin.new_zeros(*sin.shape[:-1], rest)], -1),
        )

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
        by_name: dict[str, Any] = {CACHE: cache}
        return create_causal_mask(
            config=self.decoder.config,
            inputs_embeds=hidden,
            attention_mask=valid,
            # Left out: the gaps that pruning leaves would be taken for packed sequences.
            position_ids=None,
            layer_idx=layer,
            **by_name,
        )

    def beyond_causal(self, layer: int, mask: Any) -> Tensor | None:
        """Return a layer's mask if it says more than that attention is causal, else None."""
        matrix = isinstance(mask, Tensor) and mask.ndim == 4
        return mask if matrix and self._is_special(layer) else None

    def _is_special(self, layer: int) -> bool:
        return self.sees_blocks or self.window(layer) is not None

    def mask_of_kept(
        self,
        layer: int,
        hidden: Float[Tensor, "b u d"],
        given: Any,
        source: Int64[Tensor, "b u"],
        valid: Bool[Tensor, "b u"] | None,
        cache: Cache | None,
    ) -> Any:
        """Return the mask of a layer to which only some positions of the prompts are left.

        Args:
            layer: the layer.
            hidden: its input.
            given: the mask of the whole prompts that the decoder hands the layer.
            source: which positions of the prompts are left.
            valid: which of them are no padding; None if all are.
            cache: keys and values of the call.

        Raises:
            ValueError: an attention implementation whose masks do not say who sees whom.
        """
        special = self._is_special(layer)
        # Under sdpa there is no mask where attention is causal and nothing else.
        sdpa = getattr(self.decoder.config, "_attn_implementation", None) == "sdpa"
        if not special or (given is None and sdpa):
            return self.causal_mask(layer, hidden, valid, cache)
        if not isinstance(given, Tensor) or given.ndim != 4:
            raise ValueError(
                "attn_implementation must be sdpa or eager to prune inside this language model, "
                f"which has {self.kind(layer)}; got {self.decoder.config._attn_implementation}"
            )
        return dropped_mask(given, source, valid)

    def mask_of_decoding(
        self,
        layer: int,
        hidden: Float[Tensor, "b n d"],
        given: Any,
        source: Int64[Tensor, "b s"],
        valid: Bool[Tensor, "b s"] | None,
        cache: Cache,
    ) -> Any:
        """Return the mask of a layer for new positions after prompts of which some are left.

        Args:
            layer: the layer.
            hidden: its input.
            given: the mask that the decoder hands the layer, for its form.
            source: of all positions of the layer, new ones included, which they were before
                anything was dropped.
            valid: which of them are no padding; None if all are.
            cache: keys and values of the call.
        """
        window = self.window(layer)
        if window is None:
            return self.causal_mask(layer, hidden, valid, cache)
        new = hidden.shape[1]
        length, offset = cache.get_mask_sizes(new, layer)
        cached = slice(offset, offset + length)
        seen = window_mask(source[:, -new:], source[:, cached], window)
        if valid is not None:
            seen = seen & valid[:, None, None, cached]
        if isinstance(given, Tensor) and given.dtype != torch.bool:
            least = torch.finfo(hidden.dtype).min
            return torch.zeros_like(seen, dtype=hidden.dtype).masked_fill(~seen, least)
        return seen

    def _heads(self, layer: int, linear: Any, norm: Any, normed: Tensor, angles: Angles) -> Tensor:
        heads = _product(linear, normed).unflatten(-1, (-1, self.attention(layer).head_dim))
        if norm is not None:
            heads = norm(heads)
        heads = heads.transpose(-3, -2)
        if not self.rotates(layer):
            return heads
        cos, sin = (one.unsqueeze(-3) for one in angles)
        return self.rotate(heads, cos, sin)


def _product(linear: Any, vectors: Tensor) -> Tensor:
    """Apply a projection; under `torch.autocast` its input may have another dtype than it has.

    The weights of a quantised projection say nothing about its input, if it has any.
    """
    dtype = getattr(getattr(linear, "weight", None), "dtype", None)
    return linear(vectors.to(dtype) if dtype in _PLAIN else vectors)
