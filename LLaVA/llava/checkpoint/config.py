"""Read ``config.json`` of the original layout and of transformers' own.

Not through `AutoConfig`, which takes the original layout for transformers' native LLaVA.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError

from llava.checkpoint.files import CheckpointError, CheckpointFiles
from llava.configuration import KNOWN_TOWERS, TOWER_TYPES, LlavaConfig

Layout = Literal["original", "hf"]

_ORIGINAL_TYPES = ("llava", "llava_llama")
_HF_TYPES = {"llava": ("pad", "flat"), "llava_next": ("anyres", "spatial_unpad")}
"""Model types of transformers' layout, with the original's image_aspect_ratio and merge type."""

_HF_FEATURES = {"default": "patch", "full": "cls_patch"}
"""transformers' names of the features that are selected from the tower, and the original's."""

_NOT_SETTINGS = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "max_length",
    "model_type",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
)
"""Fields of stored configurations that are about origin, generation or loading, not the model."""

_REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
    "mm_hidden_size",
)


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """A checkpoint's configuration, and where its vision tower is.

    Attributes:
        model: configuration of the model, the tower's included.
        layout: how the weights are named.
        tower: files of the tower's own repository; None if nothing is needed from it.
        tower_inside: whether the tower's weights are those in the checkpoint.
    """

    model: LlavaConfig
    layout: Layout
    tower: CheckpointFiles | None
    tower_inside: bool


def read_config(files: CheckpointFiles) -> CheckpointConfig:
    """Return the configuration of a checkpoint.

    Raises:
        CheckpointError: no ``config.json``; not of a LLaVA on Llama; the vision tower's
            configuration cannot be found.
    """
    raw = files.json("config.json")
    if raw is None:
        files.need("config.json")
        raise CheckpointError(f"config.json of {files.name} cannot be read")
    if "text_config" in raw:
        return _hf(files, raw)
    return _original(files, raw)


def _original(files: CheckpointFiles, raw: dict[str, Any]) -> CheckpointConfig:
    kind = raw.get("model_type")
    if "mm_vision_tower" not in raw and "mm_vision_config" not in raw:
        raise CheckpointError(
            f"config.json of {files.name} names no mm_vision_tower: no LLaVA checkpoint"
        )
    if kind not in _ORIGINAL_TYPES:
        raise CheckpointError(
            f"config.json of {files.name} is of model_type {kind!r}; "
            f"only {' and '.join(_ORIGINAL_TYPES)} (LLaVA on Llama) are read"
        )
    missing = [name for name in _REQUIRED if name not in raw]
    if missing:
        raise CheckpointError(f"config.json of {files.name} lacks {', '.join(missing)}")
    fields = {key: value for key, value in raw.items() if key not in _NOT_SETTINGS}
    inside = bool(raw.get("unfreeze_mm_vision_tower")) or "mm_vision_config" in raw
    tower = None
    if raw.get("mm_vision_config") is None:
        name = str(raw["mm_vision_tower"])
        tower = files.related(name)
        if not (inside and name in KNOWN_TOWERS):
            fields["mm_vision_config"] = _tower_config(tower, files)
            fields["mm_image_processor"] = tower.json("preprocessor_config.json")
    return CheckpointConfig(_model(files, fields), "original", tower, inside)


def _hf(files: CheckpointFiles, raw: dict[str, Any]) -> CheckpointConfig:
    kind = raw.get("model_type")
    text, vision = raw["text_config"], raw.get("vision_config")
    if kind not in _HF_TYPES or not isinstance(text, Mapping) or not isinstance(vision, Mapping):
        raise CheckpointError(
            f"config.json of {files.name} is of model_type {kind!r}; of transformers' own layouts "
            f"{' and '.join(_HF_TYPES)} are read"
        )
    _check_hf(files, raw, text)
    ratio, merge = _HF_TYPES[str(kind)]
    fields = {key: value for key, value in text.items() if key not in _NOT_SETTINGS}
    fields |= {
        "image_aspect_ratio": ratio,
        "mm_patch_merge_type": merge,
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": vision["hidden_size"],
        "mm_vision_tower": f"{files.name} (inside)",
        "mm_vision_config": {"model_type": "clip_vision_model", **vision},
        "mm_vision_select_feature": _HF_FEATURES[
            raw.get("vision_feature_select_strategy", "default")
        ],
        "mm_vision_select_layer": raw.get("vision_feature_layer", -2),
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "unfreeze_mm_vision_tower": True,
    }
    if kind == "llava_next":
        fields["image_grid_pinpoints"] = _pinpoints(raw["image_grid_pinpoints"])
    return CheckpointConfig(_model(files, fields), "hf", None, True)


def _check_hf(files: CheckpointFiles, raw: dict[str, Any], text: Mapping[str, Any]) -> None:
    if text.get("model_type", "llama") != "llama":
        raise CheckpointError(
            f"config.json of {files.name} has a language model of type {text['model_type']!r}; "
            "only llama is read"
        )
    expected = {"projector_hidden_act": "gelu", "multimodal_projector_bias": True}
    for name, value in expected.items():
        if raw.get(name, value) != value:
            raise CheckpointError(
                f"config.json of {files.name}: {name} must be {value!r}, got {raw[name]!r}"
            )
    select = raw.get("vision_feature_select_strategy", "default")
    layer = raw.get("vision_feature_layer", -2)
    if select not in _HF_FEATURES or not isinstance(layer, int):
        raise CheckpointError(
            f"config.json of {files.name}: vision features of layer {layer!r} by strategy "
            f"{select!r} are not known"
        )


def _pinpoints(heights_first: list[list[int]]) -> list[list[int]]:
    """Return resolutions as (width, height), the original's order; transformers has height first.

    A list with both orders of every resolution is returned as it is: it is the original's, whose
    order decides ties.
    """
    widths_first = [[width, height] for height, width in heights_first]
    return heights_first if sorted(widths_first) == sorted(heights_first) else widths_first


def _tower_config(tower: CheckpointFiles, files: CheckpointFiles) -> dict[str, Any]:
    raw = tower.json("config.json")
    if raw is None and tower.name in KNOWN_TOWERS:
        raw = KNOWN_TOWERS[tower.name]
    if raw is None:
        raise CheckpointError(
            f"the vision tower {tower.name} that {files.name} names is neither a folder with a "
            "config.json, nor cached, nor available from the hub"
        )
    if raw.get("model_type") not in TOWER_TYPES:
        raise CheckpointError(
            f"the vision tower {tower.name} is of type {raw.get('model_type')!r}; "
            f"known: {', '.join(TOWER_TYPES)}"
        )
    return raw


def _model(files: CheckpointFiles, fields: dict[str, Any]) -> LlavaConfig:
    try:
        return LlavaConfig(**{key: value for key, value in fields.items() if value is not None})
    except (TypeError, ValueError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"config.json of {files.name} is not usable: {reason}") from None
