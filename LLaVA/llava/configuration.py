"""LLaVA's configuration, and those of the vision towers that its checkpoints name."""

from typing import Any

from transformers import LlamaConfig


class LlavaConfig(LlamaConfig):
    """Llama's configuration with LLaVA's ``mm_*`` fields as further attributes."""

    model_type = "llava_llama"


TOWER_TYPES = ("clip", "clip_vision_model", "dinov2", "siglip", "siglip_vision_model")
"""Model types, in a tower's ``config.json``, of the vision towers that can be built."""

_CLIP_LARGE = {
    "model_type": "clip_vision_model",
    "hidden_act": "quick_gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-5,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}
KNOWN_TOWERS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14-336": {**_CLIP_LARGE, "image_size": 336},
    "openai/clip-vit-large-patch14": {**_CLIP_LARGE, "image_size": 224},
}
"""Configurations of the towers that LLaVA's checkpoints name. A checkpoint that holds the weights
of such a tower can be loaded without the tower's own repository."""
