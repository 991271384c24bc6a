"""Attention, keys and rotary angles of a layer, under any attention implementation."""

from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.hf.layers.adapter import Angles, DecoderAdapter
from otprune.hf.layers.masks import visible


class LayerInput:
    """The input of a decoder layer for the whole batch; what is derived from it is computed once.

    Args:
        adapter: the decoder.
        number: of the layer.
        hidden: its input, [b t d].
        angles: rotary angles of the positions, [b t c] each.
        mask: who sees whom, [b 1 t t] in either form; None for causal attention.
    """

    def __init__(
        self,
        adapter: DecoderAdapter,
        number: int,
        hidden: Float[Tensor, "b t d"],
        angles: Angles,
        mask: Tensor | None = None,
    ) -> None:
        self.adapter, self.number = adapter, number
        self.hidden, self.angles, self.mask = hidden, angles, mask

    @cached_property
    def normed(self) -> Float[Tensor, "b t d"]:
        """The input of the layer's attention module."""
        return self.adapter.attention_input(self.number, self.hidden)

    @cached_property
    def keys(self) -> Float[Tensor, "b g t c"]:
        """Keys with their rotary angles applied."""
        return self.adapter.keys(self.number, self.normed, self.angles)

    def attention(
        self, row: int, places: Int64[Tensor, " t"], queries: Int64[Tensor, " r"]
    ) -> Float[Tensor, "h r t"]:
        """Return the attention of some positions of a prompt, as probabilities in float32.

        Args:
            row: number of the prompt's row in the batch.
            places: the prompt's positions in the row, padding left out.
            queries: the attending positions, as indices into ``places``.
        """
        places, queries = places.to(self.hidden.device), queries.to(self.hidden.device)
        attending = places[queries]
        cos, sin = (one[row, attending] for one in self.angles)
        query = self.adapter.queries(self.number, self.normed[row, attending], (cos, sin))
        scores = self.adapter.attention_scores(self.number, query, self.keys[row][:, places])
        if self.mask is None:
            seen = torch.arange(len(places), device=queries.device) <= queries[:, None]
        else:
            own = self.mask[row if len(self.mask) > 1 else 0, 0].to(queries.device)
            seen = visible(own[attending][:, places])
        return scores.masked_fill(~seen, -torch.inf).softmax(-1)


class PromptProbe:
    """`otprune.layer_pruner.Probe` for one prompt.

    Args:
        inputs: input of the layer about to run.
        before: input of the layer before it, if the method looks back.
        row: number of the prompt's row in the batch.
        places: the prompt's positions in the row, padding left out.
    """

    def __init__(
        self, inputs: LayerInput, before: LayerInput | None, row: int, places: Int64[Tensor, " t"]
    ) -> None:
        self._adapter = inputs.adapter
        self._inputs = {one.number: one for one in (inputs, before) if one is not None}
        self._row, self._places = row, places

    def attention(self, layer: int, rows: Int64[Tensor, " r"]) -> Float[Tensor, "h r t"]:
        """Attention of some positions to all, as probabilities."""
        return self._of(layer).attention(self._row, self._places, rows)

    def keys(self, layer: int) -> Float[Tensor, "g t c"]:
        """Keys of a layer with their rotary angles applied."""
        keys = self._of(layer).keys[self._row]
        return keys[:, self._places.to(keys.device)]

    def rotary(self, layer: int) -> tuple[Float[Tensor, "t c"], Float[Tensor, "t c"]]:
        """Cosines and sines of the rotary angles."""
        inputs = self._of(layer)
        cos, sin = inputs.adapter.channel_angles(layer, inputs.angles)
        places = self._places.to(cos.device)
        return cos[self._row, places], sin[self._row, places]

    def final_norm(self, hidden: Float[Tensor, "t d"]) -> Float[Tensor, "t d"]:
        """The norm after the decoder's last layer."""
        return self._adapter.final_norm(hidden)

    def _of(self, layer: int) -> LayerInput:
        if layer not in self._inputs:
            known = ", ".join(map(str, sorted(self._inputs)))
            raise ValueError(f"layer must be one of {known} here, got {layer}")
        return self._inputs[layer]
