"""Choose and build a vision tower."""

from collections.abc import Mapping
from typing import Any

from llava.checkpoint.tower_schema import TowerSettings
from llava.configuration import KNOWN_TOWERS
from llava.images.processor import ImageProcessor, processor_from_config
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.dinov2_encoder import Dinov2VisionTower
from llava.model.multimodal_encoder.siglip_encoder import SiglipVisionTower
from llava.model.multimodal_encoder.tower import VisionTower

TOWERS: dict[str, type[VisionTower]] = {
    "clip": CLIPVisionTower,
    "clip_vision_model": CLIPVisionTower,
    "siglip": SiglipVisionTower,
    "siglip_vision_model": SiglipVisionTower,
    "dinov2": Dinov2VisionTower,
}

_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3")


def build_vision_tower(config: Any) -> VisionTower:
    """Return the tower of a model configuration, weights not loaded.

    ``config.mm_vision_config`` holds the tower's own configuration (the ``config.json`` of its
    folder) and ``config.mm_image_processor`` its ``preprocessor_config.json``; without them
    ``config.mm_vision_tower`` must be one of `KNOWN_TOWERS`. The image processor defaults to
    that of the tower's family at the tower's image size.

    Raises:
        ValueError: an unknown type of tower; settings that it does not have.
    """
    tower = tower_type(config)
    fields = {
        key: value
        for key, value in vision_settings(config).items()
        if key in TowerSettings.model_fields and value is not None
    }
    tower_config = tower.config_class(**fields)
    attention = getattr(config, "_attn_implementation", None)
    if attention in _ATTENTION:
        tower_config._attn_implementation = attention
    return tower(
        tower_config,
        _image_processor(config, tower, tower_config.image_size),
        select_layer=getattr(config, "mm_vision_select_layer", -2),
        select_feature=getattr(config, "mm_vision_select_feature", "patch"),
    )


def tower_type(config: Any) -> type[VisionTower]:
    """Return the class of a model configuration's tower.

    Raises:
        ValueError: an unknown type of tower.
    """
    kind = vision_settings(config).get("model_type")
    if kind not in TOWERS:
        raise ValueError(
            f"vision tower {config.mm_vision_tower} is of type {kind!r}; "
            f"known: {', '.join(sorted(TOWERS))}"
        )
    return TOWERS[kind]


def vision_settings(config: Any) -> dict[str, Any]:
    """Return the tower's own configuration as a flat dictionary.

    Raises:
        ValueError: it is not given, and the tower's name is not known.
    """
    raw = getattr(config, "mm_vision_config", None)
    if raw is None:
        name = getattr(config, "mm_vision_tower", None)
        if name not in KNOWN_TOWERS:
            raise ValueError(
                f"mm_vision_config must be given for vision tower {name!r}; "
                f"known without it: {', '.join(KNOWN_TOWERS)}"
            )
        raw = KNOWN_TOWERS[name]
    # CLIP and SigLIP repositories describe both encoders; only the vision encoder is used.
    nested = raw.get("vision_config")
    if isinstance(nested, Mapping):
        return {**nested, "model_type": raw.get("model_type")}
    return dict(raw)


def _image_processor(config: Any, tower: type[VisionTower], image_size: int) -> ImageProcessor:
    raw = getattr(config, "mm_image_processor", None)
    return tower.default_processor(image_size) if raw is None else processor_from_config(raw)
