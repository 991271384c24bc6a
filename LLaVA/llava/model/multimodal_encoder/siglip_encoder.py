"""SigLIP's vision transformer."""

from typing import Any

from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from llava.model.multimodal_encoder.tower import VisionTower


class SiglipVisionTower(VisionTower):
    """Patches without a CLS token."""

    has_cls = False
    config_class = SiglipVisionConfig
    model_class = SiglipVisionModel

    def _embed(self, images: Tensor) -> Tensor:
        return self.vision_tower.embeddings(images)

    def _blocks(self) -> nn.ModuleList:
        return self.vision_tower.encoder.layers

    def _attention_of(self, block: Any, states: Tensor) -> tuple[Any, Tensor]:
        return block.self_attn, block.layer_norm1(states)
