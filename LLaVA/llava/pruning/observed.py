"""What layer pruners observe of the layers before a point, carried along with the tokens."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from llava.pruning.rows import take_positions
from otprune import LayerPruner, Modules

HALVES = ("self_attn", "mlp")
"""Halves of a decoder layer whose input and output can be observed, in transformers' names."""


class Observed:
    """Sums up what a layer pruner says about each position of the layers that it observes.

    Attributes:
        total: the sum so far, 0 at padding and merged tokens; [b t]. None before the first layer.
    """

    def __init__(self, pruner: LayerPruner | None) -> None:
        self.pruner = pruner
        self.total: Float[Tensor, "b t"] | None = None
        self._attention: tuple[Tensor, Tensor] | None = None

    def note(
        self, number: int, name: str, given: Tensor, output: Tensor, valid: Bool[Tensor, "b t"]
    ) -> None:
        """Take note of a half of a layer; with the second one the layer is complete."""
        if name == HALVES[0]:
            self._attention = (given, output)
            return
        if self.pruner is None or self._attention is None:
            return
        modules = Modules(number, *self._attention, given, output, valid.to(given.device))
        with torch.inference_mode():
            found = self.pruner.observe(modules).masked_fill(~modules.valid, 0)
        # A copy made out here is an ordinary tensor.
        found = found.clone()
        self.total = found if self.total is None else self.total + found
        self._attention = None

    def gather(self, index: Int64[Tensor, "b t"], valid: Bool[Tensor, "b t"], length: int) -> None:
        """Keep what belongs to positions ``index`` of a sequence that merged tokens lengthened."""
        if self.total is None:
            return
        new = self.total.new_zeros(len(self.total), length - self.total.shape[1])
        whole = torch.cat([self.total, new], dim=1)
        self.total = take_positions(whole, index).masked_fill(~valid.to(whole.device), 0)
