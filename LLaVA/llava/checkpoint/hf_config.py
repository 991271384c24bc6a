"""``config.json`` of transformers' own LLaVA layouts (``llava-hf/*``)."""

from collections.abc import Mapping
from typing import Any

from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.families import other_family
from llava.checkpoint.files import CheckpointFiles

_TYPES = {"llava": ("pad", "flat"), "llava_next": ("anyres", "spatial_unpad")}
"""Model types, with the original's image_aspect_ratio and merge type."""

_FEATURES = {"default": "patch", "full": "cls_patch"}
"""transformers' names of the features that are selected from the tower, and the original's."""

_OWN = {"projector_hidden_act": "gelu", "multimodal_projector_bias": True}
"""Settings that have one value in all checkpoints that can be read."""


def is_hf(raw: Mapping[str, Any]) -> bool:
    """Return whether a configuration is of transformers' own layout of a LLaVA."""
    kind = raw.get("model_type")
    return "text_config" in raw and isinstance(kind, str) and kind in _TYPES


def hf_fields(files: CheckpointFiles, raw: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of this layout as fields of the original's.

    Raises:
        CheckpointError: a language model other than Llama; a setting that cannot be reproduced.
    """
    where = f"config.json of {files.name}"
    text, vision = raw["text_config"], raw.get("vision_config")
    if not isinstance(text, dict) or not isinstance(vision, dict):
        key, value = ("vision_config", vision) if isinstance(text, dict) else ("text_config", text)
        raise CheckpointError(f"{where}: {key} must be an object, got {value!r:.80}")
    if text.get("model_type", "llama") != "llama":
        raise other_family(files, raw)
    _check(where, raw)
    if vision.get("hidden_size") is None:
        raise CheckpointError(f"{where}: vision_config lacks hidden_size")
    kind = raw["model_type"]
    ratio, merge = _TYPES[kind]
    fields = dict(text) | {
        "image_aspect_ratio": ratio,
        "mm_patch_merge_type": merge,
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": vision["hidden_size"],
        "mm_vision_tower": f"{files.name} (inside)",
        "mm_vision_config": {"model_type": "clip_vision_model", **vision},
        "mm_vision_select_feature": _FEATURES[raw.get("vision_feature_select_strategy", "default")],
        "mm_vision_select_layer": raw.get("vision_feature_layer", -2),
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "unfreeze_mm_vision_tower": True,
    }
    if kind == "llava_next":
        fields["image_grid_pinpoints"] = _pinpoints(where, raw.get("image_grid_pinpoints"))
    return fields


def _check(where: str, raw: Mapping[str, Any]) -> None:
    for name, value in _OWN.items():
        if raw.get(name, value) != value:
            raise CheckpointError(f"{where}: {name} must be {value!r}, got {raw[name]!r:.80}")
    select = raw.get("vision_feature_select_strategy", "default")
    layer = raw.get("vision_feature_layer", -2)
    if select not in list(_FEATURES) or type(layer) is not int:
        raise CheckpointError(
            f"{where}: vision features of layer {layer!r:.80} by strategy {select!r:.80} "
            "are not known"
        )


def _pinpoints(where: str, heights_first: object) -> list[list[int]]:
    """Return resolutions as (width, height), the original's order; transformers has height first.

    A list with both orders of every resolution is returned as it is: it is the original's, whose
    order decides ties.
    """
    if not isinstance(heights_first, list) or not all(
        isinstance(pair, list) and [type(one) for one in pair] == [int, int]
        for pair in heights_first
    ):
        raise CheckpointError(
            f"{where}: image_grid_pinpoints must be a list of [height, width], "
            f"got {heights_first!r:.80}"
        )
    widths_first = [[width, height] for height, width in heights_first]
    return heights_first if sorted(widths_first) == sorted(heights_first) else widths_first
