"""Signals of a vision encoder, from its own hidden states and projections.

The projector's input is a hidden state of the encoder. Keys and attention come from the block that
made it, ``final_*`` from the block after it. Hidden states are counted as transformers does: 0 is
the embeddings, i the output of block i, negative numbers count from the end.

Attention is computed anew, softmax in float32, so every attention implementation gives the same.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from otprune.precision import without_outer_settings

_OF_CLS = frozenset({"cls_attention", "final_cls_attention", "cls_features"})
_OF_BLOCK = frozenset({"cls_attention", "received_attention", "encoder_keys"})
_OF_NEXT = frozenset({"final_cls_attention", "final_keys"})
_LARGEST = 2**25
"""Most numbers of an attention map that are held at once: 128 MiB of float32."""


class Tower(ABC):
    """A vision encoder with one block after another, and what of it the projector takes.

    Args:
        tower: the encoder.
        layer: number of the hidden state that the projector takes; None for ``last_hidden_state``,
            which is the last block's output after a norm, if there is one.
    """

    has_cls: bool = False

    def __init__(self, tower: Any, layer: int | None) -> None:
        self.tower, self.layer = tower, layer
        depth = -1 if layer is None else layer
        self.depth = depth if depth >= 0 else len(self.blocks) + 1 + depth

    @property
    @abstractmethod
    def blocks(self) -> Any:
        """The blocks in the order in which they run."""

    @property
    def gives(self) -> frozenset[str]:
        """Names of the signals."""
        if self.depth == 0:
            return frozenset()
        return frozenset({"features", "received_attention", "encoder_keys"})

    @contextmanager
    def recorded(self) -> Iterator[dict[str, Any]]:
        """Yield what `of` needs of the encoder's forward call that is made in the block.

        Empty afterwards if the encoder was not run, or without its hooks as in compiled code.
        """
        record: dict[str, Any] = {}
        thread = threading.get_ident()

        def hook(name: str) -> Any:
            def note(module: nn.Module, args: Any, kwargs: Any, output: Any = None) -> None:
                # Another thread may run the encoder meanwhile.
                if threading.get_ident() == thread:
                    record[name] = (args, kwargs, output)

            return note

        handles = []
        for name, module, before in self.places():
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.append(register(hook(name), with_kwargs=True))
        try:
            yield record
        finally:
            for handle in handles:
                handle.remove()

    @abstractmethod
    def places(self) -> list[tuple[str, nn.Module, bool]]:
        """Return name, module, and whether it is noted before it runs, of what is recorded."""

    @abstractmethod
    def of(self, record: Mapping[str, Any], wanted: frozenset[str]) -> dict[str, Sequence[Tensor]]:
        """Return signals by name, for each tile or image; heads first if any, then patches.

        Args:
            record: from `recorded`.
            wanted: names of the signals, of those in ``gives``.
        """


@dataclass(frozen=True, slots=True)
class _Kind:
    """Where the parts of an encoder are.

    Attributes:
        blocks: path of the list of blocks.
        attention: name of a block's attention module.
        norm: name of the norm before it.
        has_cls: whether a CLS token is in front of the patches.
    """

    blocks: str
    attention: str
    norm: str
    has_cls: bool


_KINDS = {
    "clip_vision_model": _Kind("encoder.layers", "self_attn", "layer_norm1", True),
    "dinov2": _Kind("encoder.layer", "attention", "norm1", True),
    "idefics3_vision": _Kind("encoder.layers", "self_attn", "layer_norm1", False),
    "internvl_vision": _Kind("encoder.layer", "attention", "layernorm_before", True),
    "siglip_vision_model": _Kind("encoder.layers", "self_attn", "layer_norm1", False),
    "smolvlm_vision": _Kind("encoder.layers", "self_attn", "layer_norm1", False),
}

TOWERS = tuple(_KINDS)
"""Types of encoders whose blocks `TileTower` knows."""


class TileTower(Tower):
    """An encoder of tiles of one size: CLIP, SigLIP, DINOv2, InternVL's, Idefics3's.

    Args:
        tower: an encoder of one of the types in `TOWERS`.
        layer: see `Tower`.
        skips_cls: whether the CLS token is left out of the projector's input.
    """

    def __init__(self, tower: Any, layer: int | None, skips_cls: bool = True) -> None:
        self._kind = _KINDS[str(tower.config.model_type)]
        self.has_cls = self._kind.has_cls
        super().__init__(tower, layer)
        self.patches = slice(1 if self.has_cls and skips_cls else 0, None)

    @property
    def blocks(self) -> Any:
        """The blocks in the order in which they run."""
        return self.tower.get_submodule(self._kind.blocks)

    @property
    def gives(self) -> frozenset[str]:
        """Names of the signals."""
        found = set(super().gives)
        if found and self.has_cls:
            found |= _OF_CLS
            found.remove("received_attention")
        if found and self.layer is not None and self.depth < len(self.blocks):
            found |= _OF_NEXT
        else:
            found -= _OF_NEXT
        return frozenset(found if self.has_cls else found - _OF_CLS)

    def places(self) -> list[tuple[str, nn.Module, bool]]:
        """Return what is recorded: input and output of a block, and which patches are padding."""
        block = self.blocks[self.depth - 1]
        taken = self.tower if self.layer is None else block
        return [("tower", self.tower, True), ("block", block, True), ("taken", taken, False)]

    @without_outer_settings()
    def of(self, record: Mapping[str, Any], wanted: frozenset[str]) -> dict[str, Sequence[Tensor]]:
        """Return signals by name, for each tile.

        Costs one product of keys and the CLS token's query for each block; without a CLS token one
        attention map, in pieces.
        """
        dtype = floating_dtype(self.tower)
        args, kwargs, _ = record["block"]
        before = (args[0] if args else kwargs["hidden_states"]).to(dtype)
        output = record["taken"][2]
        if self.layer is None:
            output = output["last_hidden_state"]
        taken = (output[0] if isinstance(output, tuple) else output).to(dtype)
        found: dict[str, Any] = {}
        if wanted & _OF_BLOCK:
            heads = self.tower.config.num_attention_heads
            queries, keys = self._attended(self.blocks[self.depth - 1], before, heads)
            if self.has_cls:
                found["cls_attention"] = self._of_first(queries, keys).to(dtype)
            elif "received_attention" in wanted:
                valid = self._valid(record["tower"][1])
                found["received_attention"] = [
                    received(q, k, None if valid is None else valid[tile]).to(dtype)
                    for tile, (q, k) in enumerate(zip(queries, keys, strict=True))
                ]
            found["encoder_keys"] = self._joined(keys)
        if wanted & _OF_NEXT:
            queries, keys = self._attended(self.blocks[self.depth], taken, 1)
            found["final_keys"] = self._joined(keys)
            if self.has_cls:
                found["final_cls_attention"] = self._of_first(queries, keys)[:, 0].to(dtype)
        found |= {"features": taken[:, self.patches], "cls_features": taken[:, :1]}
        return {name: found[name] for name in wanted}

    def _attended(self, block: Any, states: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """Return a block's queries and keys, [b h t c]; of the CLS token alone, if there is one."""
        attention = getattr(block, self._kind.attention)
        normed = getattr(block, self._kind.norm)(states)
        queries = attention.q_proj(normed[:, :1] if self.has_cls else normed)
        keys = attention.k_proj(normed)
        if hasattr(attention, "q_norm"):
            queries, keys = attention.q_norm(queries), attention.k_norm(keys)
        split = [one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (queries, keys)]
        return split[0], split[1]

    def _of_first(self, queries: Tensor, keys: Tensor) -> Float[Tensor, "b h n"]:
        scores = (queries[:, :, :1] @ keys.transpose(-1, -2))[:, :, 0] * keys.shape[-1] ** -0.5
        return scores.float().softmax(-1)[:, :, self.patches]

    def _joined(self, keys: Float[Tensor, "b h t c"]) -> Float[Tensor, "b n k"]:
        return keys.transpose(1, 2).flatten(2)[:, self.patches]

    def _valid(self, kwargs: Mapping[str, Any]) -> Bool[Tensor, "b n"] | None:
        mask = kwargs.get("patch_attention_mask")
        return None if mask is None else mask.flatten(1).bool()


def received(
    queries: Float[Tensor, "h n c"],
    keys: Float[Tensor, "h n c"],
    valid: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, "h n"]:
    """Return the attention that each patch receives: mean over all patches as queries, in float32.

    O(h n² c); the map is held in pieces.

    Args:
        queries: of each head.
        keys: of each head.
        valid: which patches are no padding; others neither attend nor are attended to.
    """
    heads, n = queries.shape[:2]
    attending = queries if valid is None else queries[:, valid]
    total = keys.new_zeros(heads, n, dtype=torch.float32)
    for some in attending.split(max(1, _LARGEST // (heads * n)), dim=1):
        scores = (some @ keys.transpose(-1, -2)).float() * keys.shape[-1] ** -0.5
        if valid is not None:
            scores = scores.masked_fill(~valid, -torch.inf)
        total += scores.softmax(-1).sum(1)
    return total / attending.shape[1]


def floating_dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype that a module computes in: of its first weight that is not quantised."""
    plain = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    found = (one.dtype for one in module.parameters() if one.dtype in plain)
    return next(found, torch.get_default_dtype())
