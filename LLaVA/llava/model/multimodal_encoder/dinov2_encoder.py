"""DINOv2's vision transformer."""

from typing import Any

from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from llava.model.multimodal_encoder.tower import VisionTower


class Dinov2VisionTower(VisionTower):
    """Patches with a CLS token in front; position embeddings are interpolated to the tile."""

    has_cls = True
    config_class = Dinov2Config
    model_class = Dinov2Model

    def _embed(self, images: Tensor) -> Tensor:
        return self.vision_tower.embeddings(images)

    def _blocks(self) -> nn.ModuleList:
        return self.vision_tower.encoder.layer

    def _attention_of(self, block: Any, states: Tensor) -> tuple[Any, Tensor]:
        return block.attention, block.norm1(states)
