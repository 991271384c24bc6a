"""Which family a checkpoint is of, as its configuration says."""

from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from otprune_lmms.embedded import checkpoint_folder
from otprune_lmms.json_files import JsonError, read_json

LLAVA = "llava"
TRANSFORMERS = "transformers"

_CONFIG = "config.json"


def family_of_checkpoint(pretrained: str, revision: str | None, *, ask: bool) -> str | None:
    """Return the name of the family that reads a checkpoint.

    LLaVA's original layout names its vision tower in a language model's configuration; any other
    layout is transformers' own. A checkpoint without a readable configuration is LLaVA's: its
    loader tells what is missing.

    Args:
        pretrained: folder, name of an embedded checkpoint, or hub id.
        revision: on the hub.
        ask: whether the hub is asked where its cache has nothing.

    Returns:
        None for a hub id of which nothing is known without asking.
    """
    config = _config(pretrained, revision, ask=ask)
    if config is None:
        return None
    original = "mm_vision_tower" in config or str(config.get("model_type")).startswith("llava_")
    original &= "vision_config" not in config
    return LLAVA if original or not config else TRANSFORMERS


def _config(pretrained: str, revision: str | None, *, ask: bool) -> dict[str, Any] | None:
    """Return a configuration; empty where there is none, None where the hub would have to tell."""
    folder = checkpoint_folder(pretrained)
    if folder is not None:
        return _read(folder / _CONFIG)
    try:
        cached = try_to_load_from_cache(pretrained, _CONFIG, revision=revision)
    except HFValidationError:
        return {}
    if isinstance(cached, str):
        return _read(Path(cached))
    if "/" not in pretrained:
        return {}
    if not ask:
        return None
    from transformers import PretrainedConfig

    try:
        found, _ = PretrainedConfig.get_config_dict(pretrained, revision=revision)
    except OSError:
        return {}
    return dict(found)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file)
    except JsonError:
        return {}
    return found if isinstance(found, dict) else {}
