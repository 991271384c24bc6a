"""What every vision tower does: run the blocks that are needed, and hand out what is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from llava.images.processor import ImageProcessor
from llava.model.devices import execution_device

TOWER_SIGNALS = frozenset({"cls_attention", "encoder_keys"})
"""Side information that a tower can give."""


@dataclass(frozen=True, slots=True)
class TowerOutput:
    """Patch features of a batch of tiles, and what was asked for beside them.

    Attributes:
        features: what the projector takes, [b n c].
        cls_attention: attention of the CLS token to each patch in the selected block, [b h n].
        encoder_keys: keys of each patch in the selected block, [b n c].
    """

    features: Float[Tensor, "b n c"]
    cls_attention: Float[Tensor, "b h n"] | None = None
    encoder_keys: Float[Tensor, "b n c"] | None = None

    def tiles(self, first: int, last: int) -> "TowerOutput":
        """Return what belongs to tiles ``first`` to ``last`` - 1."""
        attention, keys = self.cls_attention, self.encoder_keys
        return TowerOutput(
            self.features[first:last],
            None if attention is None else attention[first:last],
            None if keys is None else keys[first:last],
        )


class VisionTower(nn.Module, ABC):
    """A vision transformer whose hidden state ``select_layer`` feeds the projector.

    Only the blocks up to that hidden state are run. ``select_layer`` counts hidden states as
    transformers does: 0 are the embeddings, i the output of block i, negative numbers from the end.

    Attributes:
        vision_tower: the transformers model.
        select_layer: number of the hidden state.
        select_feature: "patch" leaves the CLS token out, "cls_patch" keeps it in front.
        image_processor: makes the tiles that this tower takes.
    """

    has_cls: ClassVar[bool]
    config_class: ClassVar[type[PreTrainedConfig]]
    model_class: ClassVar[type[PreTrainedModel]]

    def __init__(
        self,
        config: PreTrainedConfig,
        image_processor: ImageProcessor,
        select_layer: int,
        select_feature: str,
    ) -> None:
        super().__init__()
        if select_feature not in ("patch", "cls_patch"):
            raise ValueError(
                f"mm_vision_select_feature must be patch or cls_patch, got {select_feature!r}"
            )
        if select_feature == "cls_patch" and not self.has_cls:
            raise ValueError(f"cls_patch needs a CLS token, {type(self).__name__} has none")
        layers = config.num_hidden_layers
        if not -layers - 1 <= select_layer <= layers:
            raise ValueError(
                f"mm_vision_select_layer must be in {-layers - 1}..{layers} "
                f"for a tower of {layers} blocks, got {select_layer}"
            )
        self.vision_tower: Any = self.model_class._from_config(config)
        self.vision_tower.requires_grad_(False)
        self.image_processor = image_processor
        self.select_layer = select_layer
        self.select_feature = select_feature

    @property
    def config(self) -> PreTrainedConfig:
        """Configuration of the transformers model."""
        return self.vision_tower.config

    @property
    def depth(self) -> int:
        """Number of blocks that are run."""
        layers = self.config.num_hidden_layers
        return self.select_layer if self.select_layer >= 0 else layers + 1 + self.select_layer

    @property
    def hidden_size(self) -> int:
        """Channels of the features."""
        return self.config.hidden_size

    @property
    def num_patches_per_side(self) -> int:
        """Patches along a side of a tile."""
        return self.image_processor.side // self.config.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of a tile."""
        return self.num_patches_per_side**2

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.vision_tower.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where tiles are wanted."""
        return execution_device(self.vision_tower)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n c"]:
        """Return the features of a batch of tiles in the dtype of the tiles."""
        return self.encode(images).features

    def encode(
        self, images: Float[Tensor, "b 3 s s"], signals: Collection[str] = ()
    ) -> TowerOutput:
        """Return features and the named signals, all in the dtype of the tiles.

        Signals come from the block whose output is the selected hidden state, as attention number
        ``select_layer`` of transformers. They cost one product of queries and keys, computed anew
        for the CLS token alone, and nothing when they are not asked for.

        Raises:
            ValueError: a signal that this tower cannot give; tiles of another size.
        """
        self._check_signals(signals)
        side = self.image_processor.side
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, side, side):
            raise ValueError(f"tiles must be [b 3 {side} {side}], got {tuple(images.shape)}")
        with torch.no_grad():
            states = self._embed(images.to(self.device, self.dtype))
            blocks = list(self._blocks())[: self.depth]
            before_last = states
            for block in blocks:
                before_last = states
                states = block(states, attention_mask=None)
            found = {}
            if signals:
                found = self._signals(blocks[-1], before_last, signals)
        first = 1 if self.has_cls and self.select_feature == "patch" else 0
        return TowerOutput(states[:, first:].to(images.dtype), **found)

    def _check_signals(self, signals: Collection[str]) -> None:
        unknown = sorted(set(signals) - TOWER_SIGNALS)
        if unknown:
            raise ValueError(f"no vision tower gives {', '.join(unknown)}")
        if "cls_attention" in signals and not self.has_cls:
            raise ValueError(f"cls_attention needs a CLS token, {type(self).__name__} has none")
        if signals and self.depth == 0:
            raise ValueError("signals come from a block, mm_vision_select_layer runs none")

    def _signals(self, block: Any, states: Tensor, signals: Collection[str]) -> dict[str, Tensor]:
        """Return signals of a block whose input is ``states``."""
        attention, normed = self._attention_of(block, states)
        keys = attention.k_proj(normed)
        patches = slice(1, None) if self.has_cls and self.select_feature == "patch" else slice(None)
        found = {}
        if "encoder_keys" in signals:
            found["encoder_keys"] = keys[:, patches]
        if "cls_attention" in signals:
            heads = self.config.num_attention_heads
            query = attention.q_proj(normed[:, :1]).unflatten(-1, (heads, -1)).transpose(1, 2)
            split = keys.unflatten(-1, (heads, -1)).transpose(1, 2)
            scores = (query @ split.transpose(-1, -2))[:, :, 0] * split.shape[-1] ** -0.5
            found["cls_attention"] = scores.float().softmax(-1).to(states.dtype)[:, :, patches]
        return found

    @classmethod
    @abstractmethod
    def default_processor(cls, side: int) -> ImageProcessor:
        """Return the preprocessing that this family of towers was trained with."""

    @abstractmethod
    def _embed(self, images: Tensor) -> Tensor:
        """Return the input of the first block, [b t c]."""

    @abstractmethod
    def _blocks(self) -> nn.ModuleList:
        """Return all blocks."""

    @abstractmethod
    def _attention_of(self, block: Any, states: Tensor) -> tuple[Any, Tensor]:
        """Return a block's attention and the normalised states that it would be given."""
