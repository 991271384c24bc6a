"""One decoding step of transformers' Llama."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaMLP,
    LlamaModel,
    LlamaRMSNorm,
)

from otprune.hf.growing import GrowingLayer
from otprune.hf.layers.adapter import Angles

Heads = tuple[Float[Tensor, "b h c"], Float[Tensor, "b g c"], Float[Tensor, "b g c"]]
"""Queries, keys and values of one position."""


class Linear:
    """The product of `nn.Linear`, called without the module."""

    def __init__(self, module: nn.Linear) -> None:
        self.weight, self.bias = module.weight.t(), module.bias

    def __call__(self, rows: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        """Return the rows multiplied."""
        if self.bias is None:
            return torch.mm(rows, self.weight)
        return torch.addmm(self.bias, rows, self.weight)


class Norm:
    """The root mean square norm of Llama, in float32, called without the module."""

    def __init__(self, module: Any) -> None:
        self.weight, self.least = module.weight, module.variance_epsilon

    def __call__(self, rows: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Return the rows normed."""
        variance = rows.pow(2).mean(-1, keepdim=True)
        return self.weight * (rows * torch.rsqrt(variance + self.least))


@dataclass(frozen=True, slots=True)
class Layer:
    """The parts of a decoder layer; ``query_norm`` and ``key_norm`` are None in Llama."""

    attention: Any
    activation: Any
    input_norm: Norm
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    query_norm: Norm | None
    key_norm: Norm | None
    later_norm: Norm
    gate: Linear
    up: Linear
    down: Linear


class LlamaStep:
    """Runs the layers of a `LlamaModel` on one new position of each row, in float32.

    Every operation is that of transformers on the same numbers; only what does not compute is
    left out. Rows have no time axis, queries and keys are rotated together, and the sign of the
    rotation is with the sines: none of these changes a sum.

    Args:
        decoder: the decoder, of which `knows` is true.
    """

    model: ClassVar[type] = LlamaModel
    classes: ClassVar[Sequence[type]] = (LlamaDecoderLayer, LlamaAttention, LlamaMLP, LlamaRMSNorm)
    attention_norms: ClassVar[bool] = False

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.embedding, self.norm = decoder.embed_tokens.weight, Norm(decoder.norm)
        self.layers = [self._layer(one) for one in decoder.layers]

    @classmethod
    def knows(cls, decoder: Any) -> bool:
        """Return whether a decoder computes what this class does; hooks and weights aside."""
        whole, attention, feed_forward, norm = cls.classes
        if getattr(type(decoder), "forward", None) is not cls.model.forward:
            return False
        norms, linears = [decoder.norm], []
        for layer in decoder.layers:
            if type(layer) is not whole or type(layer.self_attn) is not attention:
                return False
            if type(layer.mlp) is not feed_forward:
                return False
            inside = layer.self_attn
            norms += [layer.input_layernorm, layer.post_attention_layernorm]
            if cls.attention_norms:
                norms += [inside.q_norm, inside.k_norm]
            linears += [inside.q_proj, inside.k_proj, inside.v_proj, inside.o_proj]
            linears += [layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj]
        return (
            all(type(one) is norm for one in norms)
            and all(type(one) is nn.Linear for one in linears)
            and type(decoder.embed_tokens) is nn.Embedding
            and decoder.embed_tokens.max_norm is None
            and len(decoder.layers) == decoder.config.num_hidden_layers
        )

    def _layer(self, layer: Any) -> Layer:
        inside, outside = layer.self_attn, layer.mlp
        return Layer(
            attention=inside,
            activation=outside.act_fn,
            input_norm=Norm(layer.input_layernorm),
            query=Linear(inside.q_proj),
            key=Linear(inside.k_proj),
            value=Linear(inside.v_proj),
            output=Linear(inside.o_proj),
            query_norm=Norm(inside.q_norm) if self.attention_norms else None,
            key_norm=Norm(inside.k_norm) if self.attention_norms else None,
            later_norm=Norm(layer.post_attention_layernorm),
            gate=Linear(outside.gate_proj),
            up=Linear(outside.up_proj),
            down=Linear(outside.down_proj),
        )

    def positions(self, given: Int64[Tensor, "*m b 1"]) -> tuple[Tensor | None, Tensor]:
        """Return the positions that layers are given, [b 1], and those that angles follow from."""
        return given, given

    def angles(self, hidden: Float[Tensor, "b 1 d"], positions: Tensor) -> Angles:
        """Return the rotary angles of positions."""
        return self.decoder.rotary_emb(hidden, position_ids=positions)

    def layer(
        self,
        number: int,
        hidden: Float[Tensor, "b d"],
        angles: Angles,
        mask: Float[Tensor, "b 1 1 s"] | None,
        cached: GrowingLayer,
    ) -> Float[Tensor, "b d"]:
        """Return what a layer makes of hidden states; keys and values are appended to ``cached``.

        Args:
            number: of the layer.
            hidden: its input.
            angles: `signed` ones.
            mask: what is added to the scores; None for nothing.
            cached: the layer's keys and values.
        """
        layer = self.layers[number]
        queries, keys, values = self._heads(layer, layer.input_norm(hidden), angles)
        keys, values = cached.update(keys.unsqueeze(2), values.unsqueeze(2))
        seen, _ = sdpa_attention_forward(
            layer.attention,
            queries.unsqueeze(2),
            keys,
            values,
            mask,
            dropout=0.0,
            scaling=layer.attention.scaling,
        )
        hidden = hidden + layer.output(seen.reshape(len(hidden), -1))
        normed = layer.later_norm(hidden)
        return hidden + layer.down(layer.activation(layer.gate(normed)) * layer.up(normed))

    def _heads(self, layer: Layer, normed: Float[Tensor, "b d"], angles: Angles) -> Heads:
        width = layer.attention.head_dim
        queries, keys, values = (
            product(normed).view(len(normed), -1, width)
            for product in (layer.query, layer.key, layer.value)
        )
        if layer.query_norm is not None and layer.key_norm is not None:
            queries, keys = layer.query_norm(queries), layer.key_norm(keys)
        cos, sin = angles
        heads, half = torch.cat([queries, keys], 1), width // 2
        turned = torch.cat([heads[..., half:], heads[..., :half]], -1)
        heads = heads * cos + turned * sin
        return heads[:, : queries.shape[1]], heads[:, queries.shape[1] :], values


def signed(angles: Angles) -> Angles:
    """Return rotary angles whose sines have the sign of the channels that they are added to."""
    cos, sin = angles
    first, second = sin.chunk(2, dim=-1)
    return cos, torch.cat([-first, second], -1)
