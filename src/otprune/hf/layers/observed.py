"""What a layer pruner observes of the layers before a point, carried along with the tokens."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from otprune.hf.layers.rows import take_positions
from otprune.layer_pruner import LayerPruner, Modules
from otprune.precision import without_outer_settings

Module = Literal["attention", "feed_forward"]
"""The two modules of a decoder layer, in the order in which they run."""


class Observed:
    """Sum over the observed layers of `LayerPruner.observe`, for each position.

    Attributes:
        total: the sum so far, 0 at padding and merged tokens; [b t]. None before the first observed
            layer.
    """

    def __init__(self, pruner: LayerPruner | None) -> None:
        self.pruner = pruner
        self.total: Float[Tensor, "b t"] | None = None
        self._attention: tuple[Tensor, Tensor] | None = None

    def add(
        self,
        layer: int,
        module: Module,
        given: Float[Tensor, "b t d"],
        output: Float[Tensor, "b t d"],
        valid: Bool[Tensor, "b t"],
    ) -> None:
        """Add a layer to the sum: attention is kept until the feed-forward module has run.

        Args:
            layer: number of the layer.
            module: which of its modules ran.
            given: the module's input.
            output: its output.
            valid: which positions are observed.
        """
        if module == "attention":
            self._attention = (given, output)
            return
        if self.pruner is None or self._attention is None:
            return
        modules = Modules(layer, *self._attention, given, output, valid.to(given.device))
        with torch.inference_mode(), without_outer_settings():
            found = self.pruner.observe(modules).masked_fill(~modules.valid, 0)
        # Copied outside of inference mode, so that it is an ordinary tensor.
        found = found.clone()
        self.total = found if self.total is None else self.total + found
        self._attention = None

    def gather(self, index: Int64[Tensor, "b u"], valid: Bool[Tensor, "b u"], length: int) -> None:
        """Keep the sums of some positions.

        Args:
            index: positions that are kept.
            valid: which entries of ``index`` are no padding.
            length: positions of a row from which ``index`` chooses, merged tokens at its end.
        """
        if self.total is None:
            return
        merged = self.total.new_zeros(len(self.total), length - self.total.shape[1])
        whole = torch.cat([self.total, merged], dim=1)
        self.total = take_positions(whole, index).masked_fill(~valid.to(whole.device), 0)
