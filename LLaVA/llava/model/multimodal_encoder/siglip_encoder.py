"""SigLIP's vision transformer."""

from typing import Any

from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from llava.images.processor import ImageProcessor
from llava.model.multimodal_encoder.tower import VisionTower


class SiglipVisionTower(VisionTower):
    """Patches without a CLS token."""

    has_cls = False
    config_class = SiglipVisionConfig
    model_class = SiglipVisionModel

    @classmethod
    def default_processor(cls, side: int) -> ImageProcessor:
        """Return SigLIP's own: resized to a square, values from -1 to 1."""
        half = (0.5, 0.5, 0.5)
        return ImageProcessor(side=side, fit="exact", image_mean=half, image_std=half)

    def _embed(self, images: Tensor, resized: bool = False) -> Tensor:
        return self.vision_tower.embeddings(images, interpolate_pos_encoding=resized)

    def _blocks(self) -> nn.ModuleList:
        return self.vision_tower.encoder.layers

    def _attention_of(self, block: Any, states: Tensor) -> tuple[Any, Tensor]:
        return block.self_attn, block.layer_norm1(states)
