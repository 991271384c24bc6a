"""Idefics3 and SmolVLM: the tiles of an image stand apart in the prompt, each with its budget."""

from typing import Any

from vllm.model_executor.models.idefics3 import Idefics3ForConditionalGeneration
from vllm.model_executor.models.smolvlm import SmolVLMForConditionalGeneration

from otprune_vllm.model import PrunedModel, pruned


class PrunedTiles(PrunedModel):
    """Before a model whose budgets are for tiles."""

    @staticmethod
    def unit_of(config: Any) -> int:
        """Return the tokens of a tile: its patches, of which a square becomes one token."""
        side = config.vision_config.image_size // config.vision_config.patch_size
        return (side // config.scale_factor) ** 2


@pruned
class OTPruneIdefics3ForConditionalGeneration(PrunedTiles, Idefics3ForConditionalGeneration):
    """Idefics3 with fewer tokens a tile."""


@pruned
class OTPruneSmolVLMForConditionalGeneration(PrunedTiles, SmolVLMForConditionalGeneration):
    """SmolVLM with fewer tokens a tile."""
