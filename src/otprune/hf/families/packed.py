"""Towers of Qwen2-VL, Qwen2.5-VL, Qwen3-VL, GLM-4V and Pixtral: patches of all images in one row.

Attention is among the patches of an image, or of a frame. Keys are rotated, as attention uses them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.vision_utils import get_vision_window_index

from otprune.hf.families.tower import Tower, floating_dtype, received
from otprune.precision import without_outer_settings


class _Packed(Tower):
    """What the towers here have in common; the last block is the one before the projector."""

    @without_outer_settings()
    def of(self, record: Mapping[str, Any], wanted: frozenset[str]) -> dict[str, Sequence[Tensor]]:
        """Return signals by name, for each image; those of a merged token's patches follow another.

        Costs the last block's queries and keys once more, and one attention map of each image, in
        pieces.
        """
        dtype = floating_dtype(self.tower)
        found: dict[str, Sequence[Tensor]] = {}
        order = self.order(record)
        images = self.images(record)
        if wanted & {"received_attention", "encoder_keys"}:
            queries, keys = self.attended(record, dtype)
            found["encoder_keys"] = self._cut(keys.transpose(0, 1).flatten(1), order, images)
            if "received_attention" in wanted:
                pairs = [one.split(self.chunks(record), 1) for one in (queries, keys)]
                seen = [received(q, k) for q, k in zip(*pairs, strict=True)]
                rows = torch.cat(seen, 1).T.to(dtype)
                found["received_attention"] = [one.T for one in self._cut(rows, order, images)]
        if "features" in wanted:
            found["features"] = self._cut(self.features(record).to(dtype), order, images)
        return {name: found[name] for name in wanted}

    def _cut(self, rows: Tensor, order: Tensor | None, images: Sequence[int]) -> list[Tensor]:
        return list((rows if order is None else rows[order.to(rows.device)]).split(list(images)))

    def order(self, record: Mapping[str, Any]) -> Tensor | None:
        """Return for each patch, in the order of the tokens, its place in the encoder's row."""
        return None

    def images(self, record: Mapping[str, Any]) -> list[int]:
        """Return the number of patches of each image."""
        raise NotImplementedError

    def chunks(self, record: Mapping[str, Any]) -> list[int]:
        """Return the sizes of the groups within which patches attend to each other."""
        raise NotImplementedError

    def attended(
        self, record: Mapping[str, Any], dtype: torch.dtype
    ) -> tuple[Float[Tensor, "h s c"], Float[Tensor, "h s c"]]:
        """Return the last block's queries and keys, rotated."""
        raise NotImplementedError

    def features(self, record: Mapping[str, Any]) -> Float[Tensor, "s c"]:
        """Return the projector's input."""
        raise NotImplementedError


class QwenTower(_Packed):
    """The tower of Qwen2-VL and its relatives.

    In Qwen2.5-VL patches stand window by window in the encoder, and most blocks attend within a
    window; the last one must attend to the whole image, as in every released model.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__(tower, None)

    @property
    def blocks(self) -> Any:
        """The blocks in the order in which they run."""
        return self.tower.blocks

    @property
    def gives(self) -> frozenset[str]:
        """Names of the signals: no attention and keys if the last block sees windows only."""
        whole = getattr(self.tower, "fullatt_block_indexes", None)
        if whole is not None and len(self.blocks) - 1 not in whole:
            return frozenset({"features"})
        return super().gives

    def places(self) -> list[tuple[str, nn.Module, bool]]:
        """Return what is recorded: the call, and the inputs of attention and of the merger."""
        # GLM-4V norms, then convolves the patches of a token before it projects.
        merging = getattr(self.tower, "downsample", self.tower.merger)
        attention = self.blocks[-1].attn
        return [
            ("tower", self.tower, True), ("attention", attention, True), ("taken", merging, True),
        ]  # fmt: skip

    def order(self, record: Mapping[str, Any]) -> Tensor | None:
        """Return the patches' places, which are those of windows in Qwen2.5-VL."""
        if not hasattr(self.tower, "window_size"):
            return None
        tower = self.tower
        index, _ = get_vision_window_index(
            self._grids(record), spatial_merge_size=tower.spatial_merge_size,
            window_size=tower.window_size, patch_size=tower.patch_size, kwargs={},
        )  # fmt: skip
        unit = tower.spatial_merge_size**2
        return (index.argsort()[:, None] * unit + torch.arange(unit, device=index.device)).flatten()

    def images(self, record: Mapping[str, Any]) -> list[int]:
        """Return the number of patches of each image."""
        return self._grids(record).prod(-1).tolist()

    def _grids(self, record: Mapping[str, Any]) -> Tensor:
        args, kwargs, _ = record["tower"]
        return kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]

    def chunks(self, record: Mapping[str, Any]) -> list[int]:
        """Return the number of patches of each frame."""
        return record["attention"][1]["cu_seqlens"].diff().tolist()

    def attended(
        self, record: Mapping[str, Any], dtype: torch.dtype
    ) -> tuple[Float[Tensor, "h s c"], Float[Tensor, "h s c"]]:
        """Return the last block's queries and keys, rotated in float32 as by the encoder."""
        attention = self.blocks[-1].attn
        args, kwargs, _ = record["attention"]
        normed = (args[0] if args else kwargs["hidden_states"]).to(dtype)
        rows = attention.qkv(normed).unflatten(-1, (3, attention.num_heads, -1))
        # Some relatives norm queries and keys.
        queries, keys = (rows[:, one].transpose(0, 1) for one in (0, 1))
        if hasattr(attention, "q_norm"):
            queries, keys = attention.q_norm(queries), attention.k_norm(keys)
        cos, sin = (one.float() for one in kwargs["position_embeddings"])
        rotated = [_rotated(one.float(), cos, sin).to(dtype) for one in (queries, keys)]
        return rotated[0], rotated[1]

    def features(self, record: Mapping[str, Any]) -> Float[Tensor, "s c"]:
        """Return the merger's input, or that of the convolution before it."""
        args, kwargs, _ = record["taken"]
        taken = args[0] if args else next(iter(kwargs.values()))
        return taken.flatten(2).transpose(1, 2).flatten(0, 1) if taken.ndim == 4 else taken


class PixtralTower(_Packed):
    """The tower of Pixtral, Mistral 3 and LightOnOCR.

    Args:
        tower: the encoder.
        layer: see `Tower`.
    """

    @property
    def blocks(self) -> Any:
        """The blocks in the order in which they run."""
        return self.tower.transformer.layers

    def places(self) -> list[tuple[str, nn.Module, bool]]:
        """Return what is recorded: the call, and a block's attention and output."""
        block = self.blocks[self.depth - 1]
        return [
            ("tower", self.tower, True), ("attention", block.attention, True),
            ("taken", block, False),
        ]  # fmt: skip

    def images(self, record: Mapping[str, Any]) -> list[int]:
        """Return the number of patches of each image, which its size in pixels says."""
        args, kwargs, _ = record["tower"]
        sizes = kwargs.get("image_sizes", args[1] if len(args) > 1 else None)
        if sizes is None:
            pixels = args[0] if args else kwargs["pixel_values"]
            sizes = [pixels.shape[-2:]] * len(pixels)
        side = self.tower.patch_size
        return [(int(rows) // side) * (int(columns) // side) for rows, columns in sizes]

    def chunks(self, record: Mapping[str, Any]) -> list[int]:
        """Return the number of patches of each image."""
        return self.images(record)

    def attended(
        self, record: Mapping[str, Any], dtype: torch.dtype
    ) -> tuple[Float[Tensor, "h s c"], Float[Tensor, "h s c"]]:
        """Return a block's queries and keys, rotated."""
        attention = self.blocks[self.depth - 1].attention
        args, kwargs, _ = record["attention"]
        normed = (args[0] if args else kwargs["hidden_states"])[0].to(dtype)
        cos, sin = (one.to(dtype) for one in kwargs["position_embeddings"])
        split = [
            project(normed).unflatten(-1, (attention.num_heads, -1)).transpose(0, 1)
            for project in (attention.q_proj, attention.k_proj)
        ]
        return _rotated(split[0], cos, sin), _rotated(split[1], cos, sin)

    def features(self, record: Mapping[str, Any]) -> Float[Tensor, "s c"]:
        """Return the block's output."""
        output = record["taken"][2]
        return (output[0] if isinstance(output, tuple) else output)[0]


def _rotated(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = vectors.chunk(2, dim=-1)
    return vectors * cos + torch.cat([-second, first], dim=-1) * sin
