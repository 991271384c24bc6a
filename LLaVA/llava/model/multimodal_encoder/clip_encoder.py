"""CLIP's vision transformer, the tower of LLaVA-1.5 and 1.6."""

from typing import Any

from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from llava.images.processor import ImageProcessor
from llava.model.multimodal_encoder.tower import VisionTower


class CLIPVisionTower(VisionTower):
    """Patches with a CLS token in front."""

    has_cls = True
    config_class = CLIPVisionConfig
    model_class = CLIPVisionModel

    @classmethod
    def default_processor(cls, side: int) -> ImageProcessor:
        """Return CLIP's own."""
        return ImageProcessor(side=side)

    def _embed(self, images: Tensor, resized: bool = False) -> Tensor:
        # "layrnorm" is how CLIP itself spells it.
        embeddings = self.vision_tower.embeddings(images, interpolate_pos_encoding=resized)
        return self.vision_tower.pre_layrnorm(embeddings)

    def _blocks(self) -> nn.ModuleList:
        return self.vision_tower.encoder.layers

    def _attention_of(self, block: Any, states: Tensor) -> tuple[Any, Tensor]:
        return block.self_attn, block.layer_norm1(states)
