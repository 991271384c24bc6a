"""The interface of vision towers: features of tiles, and the signals that methods need."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from llava.images.processor import ImageProcessor
from llava.model.devices import execution_device
from otprune.precision import without_outer_settings

TOWER_SIGNALS = frozenset(
    {
        "cls_attention",
        "encoder_keys",
        "final_cls_attention",
        "final_keys",
        "features",
        "cls_features",
    }
)
"""Signals that a tower can give; see `otprune.Signals`."""

_OF_CLS = frozenset({"cls_attention", "final_cls_attention", "cls_features"})
_OF_NEXT = frozenset({"final_cls_attention", "final_keys"})
_OF_BLOCK = frozenset({"cls_attention", "encoder_keys"})


@dataclass(frozen=True, slots=True)
class TowerOutput:
    """Patch features of a batch of tiles, and the requested signals.

    Attributes:
        features: the projector's input, [b n c].
        signals: by name, tiles first: cls_attention [b h n], final_cls_attention [b n],
            cls_features [b c], the others [b n c].
    """

    features: Float[Tensor, "b n c"]
    signals: dict[str, Tensor] = field(default_factory=dict)

    def tiles(self, first: int, last: int) -> "TowerOutput":
        """Return what belongs to tiles ``first`` to ``last`` - 1."""
        own = {name: value[first:last] for name, value in self.signals.items()}
        return TowerOutput(self.features[first:last], own)


class VisionTower(nn.Module, ABC):
    """A vision transformer whose hidden state ``select_layer`` is the projector's input.

    Only the blocks up to that hidden state are run. ``select_layer`` counts hidden states as
    transformers does: 0 is the embeddings, i the output of block i, negative ones from the end.

    Attributes:
        vision_tower: the transformers model.
        select_layer: number of the hidden state.
        select_feature: "patch" leaves the CLS token out, "cls_patch" keeps it in front.
        image_processor: produces the tiles that this tower takes.
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
        """Device on which tiles are expected."""
        return execution_device(self.vision_tower)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n c"]:
        """Return the features of a batch of tiles in the dtype of the tiles."""
        return self.encode(images).features

    def encode(
        self, images: Float[Tensor, "b 3 s s"], signals: Collection[str] = ()
    ) -> TowerOutput:
        """Return features and the named signals, all in the dtype of the tiles.

        Keys and attention come from the block whose output is the selected hidden state
        (transformers' attention number ``select_layer``), ``final_*`` from the block after it. They
        cost one product of keys and the CLS token's query, and nothing if they are not requested.

        Raises:
            ValueError: a signal that the tower cannot give; tiles of another size.
        """
        self.check_signals(signals)
        side = self.image_processor.side
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, side, side):
            raise ValueError(f"tiles must be [b 3 {side} {side}], got {tuple(images.shape)}")
        with torch.no_grad():
            states = self._embed(images.to(self.device, self.dtype))
            before_last = states
            for block in list(self._blocks())[: self.depth]:
                before_last = states
                states = block(states, attention_mask=None)
            found = self._signals(before_last, states, frozenset(signals))
        return TowerOutput(
            states[:, self._patches].to(images.dtype),
            {name: value.to(images.dtype) for name, value in found.items()},
        )

    def features_at(
        self, images: Float[Tensor, "b 3 s s"], rows: int, columns: int
    ) -> Float[Tensor, "b n c"]:
        """Return the features of tiles down-sampled to ``rows`` x ``columns`` patches.

        Pixels are resized (bicubic, antialiased); position embeddings are interpolated by the
        tower's own code for other sizes.
        """
        patch = self.config.patch_size
        small = torch.nn.functional.interpolate(
            images.to(self.device, torch.float32),
            (rows * patch, columns * patch),
            mode="bicubic",
            antialias=True,
            align_corners=False,
        )
        with torch.no_grad():
            states = self._embed(small.to(self.dtype), resized=True)
            for block in list(self._blocks())[: self.depth]:
                states = block(states, attention_mask=None)
        return states[:, 1 if self.has_cls else 0 :].to(images.dtype)

    @property
    def _patches(self) -> slice:
        """The positions of a hidden state that are the projector's input."""
        return slice(1 if self.has_cls and self.select_feature == "patch" else 0, None)

    def check_signals(self, signals: Collection[str]) -> None:
        """Raise ``ValueError`` if the tower cannot give one of the named signals."""
        wanted, name = set(signals), type(self).__name__
        unknown = sorted(wanted - TOWER_SIGNALS)
        if unknown:
            raise ValueError(f"no vision tower gives {', '.join(unknown)}")
        for signal in sorted(wanted & _OF_CLS):
            if not self.has_cls:
                raise ValueError(f"{signal} needs a CLS token, {name} has none")
        if wanted & (_OF_BLOCK | _OF_NEXT) and self.depth == 0:
            raise ValueError("signals come from a block, mm_vision_select_layer runs none")
        for signal in sorted(wanted & _OF_NEXT):
            if self.depth == len(self._blocks()):
                raise ValueError(
                    f"{signal} needs a block after the selected hidden state; {name} ends with "
                    f"block {self.depth}"
                )

    @without_outer_settings()
    def _signals(self, before: Tensor, states: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Return signals of the last block that ran and of the next one.

        Args:
            before: input of the last block that ran.
            states: its output.
            wanted: names of the signals.
        """
        found: dict[str, Tensor] = {}
        blocks = self._blocks()
        # Under autocast they may have another dtype than the blocks.
        before, states = before.to(self.dtype), states.to(self.dtype)
        if wanted & _OF_BLOCK:
            keys, attention = self._attended(
                blocks[self.depth - 1], before, self.config.num_attention_heads
            )
            found |= {"encoder_keys": keys, "cls_attention": attention}
        if wanted & _OF_NEXT:
            keys, attention = self._attended(blocks[self.depth], states, 1)
            found |= {"final_keys": keys, "final_cls_attention": attention[:, 0]}
        if "features" in wanted:
            found["features"] = states[:, self._patches]
        if "cls_features" in wanted:
            found["cls_features"] = states[:, 0]
        return {name: value for name, value in found.items() if name in wanted}

    def _attended(self, block: Any, states: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """Return the keys of a block, and the first token's attention to each patch."""
        attention, normed = self._attention_of(block, states)
        keys = attention.k_proj(normed)
        query = attention.q_proj(normed[:, :1]).unflatten(-1, (heads, -1)).transpose(1, 2)
        split = keys.unflatten(-1, (heads, -1)).transpose(1, 2)
        scores = (query @ split.transpose(-1, -2))[:, :, 0] * split.shape[-1] ** -0.5
        seen = scores.float().softmax(-1).to(states.dtype)
        return keys[:, self._patches], seen[:, :, self._patches]

    @classmethod
    @abstractmethod
    def default_processor(cls, side: int) -> ImageProcessor:
        """Return the preprocessing with which this family of towers was trained."""

    @abstractmethod
    def _embed(self, images: Tensor, resized: bool = False) -> Tensor:
        """Return the input of the first block, [b t c]; ``resized``: tiles have another size."""

    @abstractmethod
    def _blocks(self) -> nn.ModuleList:
        """Return all blocks."""

    @abstractmethod
    def _attention_of(self, block: Any, states: Tensor) -> tuple[Any, Tensor]:
        """Return a block's attention module and that module's input for the block's input."""
