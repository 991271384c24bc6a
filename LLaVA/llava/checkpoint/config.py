"""Read ``config.json`` of the original layout and of transformers' own.

Not through `AutoConfig`, which takes the original layout for transformers' native LLaVA.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError

from llava.checkpoint.checked import checked
from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.families import other_family
from llava.checkpoint.files import CheckpointFiles
from llava.checkpoint.hf_config import hf_fields, is_hf
from llava.checkpoint.schema import ModelSettings
from llava.checkpoint.tower_schema import ProcessorSettings, TowerSettings
from llava.configuration import KNOWN_TOWERS, TOWER_TYPES, LlavaConfig

Layout = Literal["original", "hf"]

_ORIGINAL_TYPES = ("llava", "llava_llama")

_NOT_SETTINGS = frozenset(
    {
        *("architectures", "auto_map", "dtype", "id2label", "label2id", "max_length"),
        *("model_type", "quantization_config", "torch_dtype", "transformers_version"),
    }
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
        CheckpointError: no ``config.json``; not of a LLaVA on Llama; a value beyond its bounds; the
            vision tower's configuration cannot be found.
    """
    raw = files.json("config.json")
    if raw is None:
        files.need("config.json")
        raise CheckpointError(f"config.json of {files.name} cannot be read")
    if is_hf(raw):
        fields = hf_fields(files, raw)
        return CheckpointConfig(_model(files, fields), "hf", None, True)
    if raw.get("model_type") not in _ORIGINAL_TYPES or "text_config" in raw:
        raise other_family(files, raw)
    return _original(files, raw)


def _original(files: CheckpointFiles, raw: dict[str, Any]) -> CheckpointConfig:
    own_tower = raw.get("mm_vision_config") is not None
    if raw.get("mm_vision_tower") is None and not own_tower:
        raise CheckpointError(
            f"config.json of {files.name}: mm_vision_tower must name the folder or repository of "
            f"a vision tower, got {'null' if 'mm_vision_tower' in raw else 'no such key'}"
        )
    missing = [name for name in _REQUIRED if raw.get(name) is None]
    if missing:
        raise CheckpointError(f"config.json of {files.name} lacks {', '.join(missing)}")
    fields = dict(raw)
    settings = checked(ModelSettings, fields, f"config.json of {files.name}")
    inside = settings.unfreeze_mm_vision_tower or own_tower
    tower = None
    if not own_tower:
        name = str(settings.mm_vision_tower)
        tower = files.related(name)
        if not (inside and name in KNOWN_TOWERS):
            fields["mm_vision_config"] = _tower_config(tower, files)
            fields["mm_image_processor"] = tower.json("preprocessor_config.json")
    return CheckpointConfig(_model(files, fields, tower), "original", tower, inside)


def _tower_config(tower: CheckpointFiles, files: CheckpointFiles) -> dict[str, Any]:
    try:
        raw = tower.json("config.json")
    except CheckpointError as error:
        raise CheckpointError(f"mm_vision_tower in config.json of {files.name}: {error}") from None
    if raw is None and tower.name in KNOWN_TOWERS:
        raw = KNOWN_TOWERS[tower.name]
    if raw is None:
        raise CheckpointError(
            f"the vision tower {tower.name} that {files.name} names is neither a folder with a "
            "config.json, nor cached, nor available from the hub"
        )
    return raw


def _model(
    files: CheckpointFiles, fields: Mapping[str, Any], tower: CheckpointFiles | None = None
) -> LlavaConfig:
    """Return the configuration of checked fields; ``tower`` is where the tower's come from."""
    where = f"config.json of {files.name}"
    checked(ModelSettings, fields, where)
    if tower is None:
        vision_in, pixels_in = f"{where}: mm_vision_config", f"{where}: mm_image_processor"
    else:
        vision_in = f"config.json of the vision tower {tower.name}"
        pixels_in = f"preprocessor_config.json of the vision tower {tower.name}"
    if fields.get("mm_vision_config") is not None:
        _check_tower(fields["mm_vision_config"], vision_in)
    if fields.get("mm_image_processor") is not None:
        checked(ProcessorSettings, fields["mm_image_processor"], pixels_in)
    try:
        return LlavaConfig(**{key: value for key, value in fields.items() if _kept(key, value)})
    except (TypeError, ValueError, LookupError, AttributeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{where} is not usable: {reason}") from None


def _check_tower(raw: Mapping[str, Any], where: str) -> None:
    if raw.get("model_type") not in TOWER_TYPES:
        raise CheckpointError(
            f"{where}: the vision tower is of type {raw.get('model_type')!r:.80}; "
            f"known: {', '.join(TOWER_TYPES)}"
        )
    # CLIP and SigLIP repositories describe both encoders.
    nested = raw.get("vision_config")
    checked(TowerSettings, nested if isinstance(nested, Mapping) else raw, where)


def _kept(key: str, value: object) -> bool:
    """Return whether a stored field becomes an attribute of the model's configuration.

    Of fields that are not read, plain values are kept, so that they are written again; not names of
    the configuration's own methods, nor what is private to it.
    """
    if value is None or key in _NOT_SETTINGS:
        return False
    if key in ModelSettings.model_fields:
        return True
    return not (key.startswith("_") or hasattr(LlavaConfig, key) or isinstance(value, dict | list))
