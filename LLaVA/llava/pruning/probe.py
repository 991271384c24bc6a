"""Attention and keys of a layer for chosen rows, under any attention implementation."""

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers.models.llama.modeling_llama import rotate_half


class Layers:
    """A decoder layer and its input, for the whole batch; what is asked for is computed once.

    Args:
        text_model: the decoder.
        number: of the layer.
        hidden: its input, [b t d].
        angles: cosines and sines of the rotary angles, [b t c] each.
        positions: rotary positions, [b t].
    """

    def __init__(
        self,
        text_model: Any,
        number: int,
        hidden: Float[Tensor, "b t d"],
        angles: tuple[Tensor, Tensor],
        positions: Int64[Tensor, "b t"],
    ) -> None:
        self.text_model, self.number = text_model, number
        self.hidden, self.angles, self.positions = hidden, angles, positions

    @cached_property
    def normed(self) -> Float[Tensor, "b t d"]:
        """What the layer's attention is given."""
        return self._layer.input_layernorm(self.hidden)

    @cached_property
    def keys(self) -> Float[Tensor, "b g t c"]:
        """Keys with their rotary angles."""
        attention = self._layer.self_attn
        keys = attention.k_proj(self.normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        cos, sin = (one[:, None] for one in self.angles)
        return keys * cos + rotate_half(keys) * sin

    @property
    def _layer(self) -> Any:
        return self.text_model.layers[self.number]

    def attention(
        self, row: int, places: Int64[Tensor, " t"], rows: Int64[Tensor, " r"]
    ) -> Float[Tensor, "h r t"]:
        """Return what `otprune.layer_pruner.Probe.attention` does, for a row of the batch.

        Args:
            row: number of the row.
            places: positions of the prompt in the row, padding left out.
            rows: which of them ask.
        """
        attention = self._layer.self_attn
        places = places.to(self.hidden.device)
        rows = rows.to(self.hidden.device)
        asking = places[rows]
        query = attention.q_proj(self.normed[row, asking])
        query = query.unflatten(-1, (-1, attention.head_dim)).transpose(0, 1)
        cos, sin = (one[row, asking] for one in self.angles)
        query = query * cos + rotate_half(query) * sin
        keys = self.keys[row][:, places].repeat_interleave(attention.num_key_value_groups, 0)
        scores = (query @ keys.transpose(1, 2)).float() * attention.scaling
        later = torch.arange(len(places), device=rows.device) > rows[:, None]
        return scores.masked_fill(later, -torch.inf).softmax(-1)


class PromptProbe:
    """What a layer pruner may ask, of one prompt; see `otprune.layer_pruner.Probe`."""

    def __init__(
        self, layers: Layers, before: Layers | None, row: int, places: Int64[Tensor, " t"]
    ) -> None:
        self._layers = {one.number: one for one in (layers, before) if one is not None}
        self._row, self._places = row, places

    def attention(self, layer: int, rows: Int64[Tensor, " r"]) -> Float[Tensor, "h r t"]:
        """Attention of some positions to all, as probabilities."""
        return self._of(layer).attention(self._row, self._places, rows)

    def keys(self, layer: int) -> Float[Tensor, "g t c"]:
        """Keys of a layer with their rotary angles."""
        keys = self._of(layer).keys[self._row]
        return keys[:, self._places.to(keys.device)]

    def rotary(self, layer: int) -> tuple[Float[Tensor, "t c"], Float[Tensor, "t c"]]:
        """Cosines and sines of the rotary angles."""
        cos, sin = self._of(layer).angles
        places = self._places.to(cos.device)
        return cos[self._row, places], sin[self._row, places]

    def final_norm(self, hidden: Float[Tensor, "t d"]) -> Float[Tensor, "t d"]:
        """The decoder's last norm."""
        (layers, *_) = self._layers.values()
        return layers.text_model.norm(hidden)

    def _of(self, layer: int) -> Layers:
        if layer not in self._layers:
            known = ", ".join(map(str, sorted(self._layers)))
            raise ValueError(f"layer must be one of {known} here, got {layer}")
        return self._layers[layer]
