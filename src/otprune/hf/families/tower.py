"""Signals of a CLIP, SigLIP or DINOv2 vision encoder, from two of its hidden states.

The projector's input is a hidden state of the encoder. Keys and attention come from the block that
made it, ``final_*`` from the block after it. Hidden states are counted as transformers does: 0 is
the embeddings, i the output of block i, negative numbers count from the end.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from otprune.precision import without_outer_settings

_OF_CLS = frozenset({"cls_attention", "final_cls_attention", "cls_features"})
_OF_BLOCK = frozenset({"cls_attention", "encoder_keys"})
_OF_NEXT = frozenset({"final_cls_attention", "final_keys"})


TOWERS = ("clip_vision_model", "dinov2", "siglip_vision_model")
"""Types of encoders whose blocks `TowerSignals` knows."""


class TowerSignals:
    """A vision encoder with one block after another, and what of it the projector takes.

    Args:
        tower: an encoder of one of the types in `TOWERS`.
        layer: number of the hidden state that the projector takes.
        skips_cls: whether the CLS token is left out of it.
    """

    def __init__(self, tower: Any, layer: int, skips_cls: bool) -> None:
        self.tower = tower
        self.kind = str(tower.config.model_type)
        self.has_cls = self.kind != "siglip_vision_model"
        self.blocks: Any = tower.encoder.layer if self.kind == "dinov2" else tower.encoder.layers
        self.depth = layer if layer >= 0 else len(self.blocks) + 1 + layer
        self.patches = slice(1 if self.has_cls and skips_cls else 0, None)

    @property
    def gives(self) -> frozenset[str]:
        """Names of the signals."""
        if self.depth == 0:
            return frozenset()
        found = {"features"} | _OF_BLOCK
        if self.depth < len(self.blocks):
            found |= _OF_NEXT
        if self.has_cls:
            found.add("cls_features")
        return frozenset(found if self.has_cls else found - _OF_CLS)

    @contextmanager
    def recorded(self) -> Iterator[dict[int, Float[Tensor, "b t c"]]]:
        """Yield the hidden states, by number, that are made in the block and that `of` needs."""
        states: dict[int, Tensor] = {}

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states[self.depth - 1] = args[0] if args else kwargs["hidden_states"]

        def after(module: nn.Module, args: Any, output: Any) -> None:
            states[self.depth] = output[0] if isinstance(output, tuple) else output

        block = self.blocks[self.depth - 1]
        handles = [
            block.register_forward_pre_hook(before, with_kwargs=True),
            block.register_forward_hook(after),
        ]
        try:
            yield states
        finally:
            for handle in handles:
                handle.remove()

    @without_outer_settings()
    def of(
        self, states: Mapping[int, Float[Tensor, "b t c"]], wanted: frozenset[str]
    ) -> dict[str, Tensor]:
        """Return signals of images of one tile each: tiles first, then heads if any, then tokens.

        Costs one product of keys and the CLS token's query for each block.

        Args:
            states: from `recorded`.
            wanted: names of the signals, of those in ``gives``.
        """
        found: dict[str, Tensor] = {}
        dtype = next(self.tower.parameters()).dtype
        taken = states[self.depth].to(dtype)
        if wanted & _OF_BLOCK:
            block, heads = self.blocks[self.depth - 1], self.tower.config.num_attention_heads
            keys, seen = self._attended(block, states[self.depth - 1].to(dtype), heads)
            found |= {"encoder_keys": keys, "cls_attention": seen}
        if wanted & _OF_NEXT:
            keys, seen = self._attended(self.blocks[self.depth], taken, 1)
            found |= {"final_keys": keys, "final_cls_attention": seen[:, 0]}
        found |= {"features": taken[:, self.patches], "cls_features": taken[:, :1]}
        return {name: found[name] for name in wanted}

    def _attended(self, block: Any, states: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """Return the keys of a block, and the first token's attention to each patch."""
        dino = self.kind == "dinov2"
        attention = block.attention if dino else block.self_attn
        normed = (block.norm1 if dino else block.layer_norm1)(states)
        keys = attention.k_proj(normed)
        query = attention.q_proj(normed[:, :1]).unflatten(-1, (heads, -1)).transpose(1, 2)
        split = keys.unflatten(-1, (heads, -1)).transpose(1, 2)
        scores = (query @ split.transpose(-1, -2))[:, :, 0] * split.shape[-1] ** -0.5
        seen = scores.float().softmax(-1).to(states.dtype)
        return keys[:, self.patches], seen[:, :, self.patches]
