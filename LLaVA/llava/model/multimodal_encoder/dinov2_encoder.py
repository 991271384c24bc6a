"""DINOv2's vision transformer."""

from typing import Any

from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from llava.images.processor import ImageProcessor
from llava.model.multimodal_encoder.tower import VisionTower


class Dinov2VisionTower(VisionTower):
    """Patches with a CLS token in front; position embeddings are interpolated to the tile."""

    has_cls = True
    config_class = Dinov2Config
    model_class = Dinov2Model

    @classmethod
    def default_processor(cls, side: int) -> ImageProcessor:
        """Return DINOv2's normalisation, ImageNet's, without its margin around the crop."""
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return ImageProcessor(side=side, image_mean=mean, image_std=std)

    def _embed(self, images: Tensor, resized: bool = False) -> Tensor:
        # DINOv2 interpolates whenever the size is another.
        return self.vision_tower.embeddings(images)

    def _blocks(self) -> nn.ModuleList:
        return self.vision_tower.encoder.layer

    def _attention_of(self, block: Any, states: Tensor) -> tuple[Any, Tensor]:
        return block.attention, block.norm1(states)
