"""All weights of a model, from a checkpoint, its base model and its vision tower."""

import logging
import re
from typing import Any

from torch import Tensor

from llava.checkpoint.config import CheckpointConfig
from llava.checkpoint.files import CheckpointError, CheckpointFiles
from llava.checkpoint.layouts import from_hf, from_original, from_tower, is_tower, is_weight
from llava.checkpoint.shards import SOURCES, Weights, read_bin, read_safetensors, read_weights

logger = logging.getLogger(__name__)

_LORA = re.compile(r"^base_model\.model\.(.+)\.lora_([AB])\.(?:default\.)?weight$")


def assemble(
    files: CheckpointFiles, base: CheckpointFiles | None, config: CheckpointConfig
) -> Weights:
    """Return the weights of a model under the names used here, on the CPU.

    With a ``base``, the checkpoint changes weights of that model: it is either a projector
    (``mm_projector.bin``) or a LoRA adapter with ``non_lora_trainables.bin``, which is merged.
    The vision tower comes from the checkpoint if its configuration says so, else from its own
    folder or repository. If that cannot be read it comes from the checkpoint after all, with a
    warning, since a frozen tower was saved unchanged.

    Raises:
        CheckpointError: as `read_weights`; a tower that is nowhere; an adapter of another kind.
    """
    if base is None:
        rename = from_hf if config.layout == "hf" else from_original
        weights = rename(read_weights(files, is_weight))
    else:
        weights = from_original(read_weights(base, is_weight))
        weights |= _on_top(files, weights)
    inside = {name: tensor for name, tensor in weights.items() if is_tower(name)}
    others = {name: tensor for name, tensor in weights.items() if not is_tower(name)}
    return others | _tower(files, config, inside)


def _tower(files: CheckpointFiles, config: CheckpointConfig, inside: Weights) -> Weights:
    if config.tower_inside:
        if inside:
            return inside
        raise CheckpointError(
            f"config.json of {files.name} says that its vision tower is inside, "
            "but no weight of it is"
        )
    if config.tower is None:
        raise CheckpointError(f"{files.name} names no vision tower")
    try:
        return from_tower(read_weights(config.tower, is_weight))
    except CheckpointError as error:
        if not inside or config.tower.folder is not None:
            raise
        logger.warning("%s; taking the tower that %s holds", error, files.name)
        return inside


def refuse_parts(files: CheckpointFiles) -> None:
    """Refuse a folder that holds an adapter or a projector, which is no model without its base.

    Raises:
        CheckpointError: it holds one.
    """
    if files.folder is None:
        return
    if files.find("adapter_config.json"):
        raise CheckpointError(f"{files.name} is a LoRA adapter: give its base as model_base")
    if files.find("mm_projector.bin") and not any(map(files.find, SOURCES)):
        raise CheckpointError(f"{files.name} is a projector: give its base as model_base")


def _on_top(files: CheckpointFiles, weights: Weights) -> Weights:
    """Return the weights of a base that a projector or an adapter changes."""
    settings = files.json("adapter_config.json")
    if settings is None:
        path = files.need("mm_projector.bin")
        return {_plain(name): tensor for name, tensor in read_bin(path).items()}
    changed = from_original(
        {_plain(n): t for n, t in read_bin(files.need("non_lora_trainables.bin")).items()}
    )
    return changed | _merged(files, settings, weights)


def _plain(name: str) -> str:
    """Return a name without the prefix ``base_model.model.`` of training wrappers."""
    name = name.removeprefix("base_model.")
    return name.removeprefix("model.") if name.startswith("model.model.") else name


def _merged(files: CheckpointFiles, settings: dict[str, Any], weights: Weights) -> Weights:
    """Return W + (alpha / r) B A for every matrix of an adapter (LoRA, arXiv 2106.09685, sec. 4.1).

    Computed in float32 and returned in the dtype of W.
    """
    if settings.get("peft_type", "LORA") != "LORA" or settings.get("use_dora"):
        raise CheckpointError(f"adapter_config.json of {files.name} is of a kind other than LoRA")
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise CheckpointError(f"adapter_config.json of {files.name} has no r and lora_alpha")
    scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
    factors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _adapter(files).items():
        match = _LORA.match(name)
        if match is None:
            raise CheckpointError(f"the adapter {files.name} holds {name}, which is no LoRA factor")
        factors.setdefault(match[1] + ".weight", {})[match[2]] = tensor.float()
    merged = {}
    for name, pair in factors.items():
        if name not in weights or set(pair) != {"A", "B"}:
            raise CheckpointError(f"{files.name} lacks a factor or the base of {name}")
        delta = pair["B"] @ pair["A"] * scale
        merged[name] = (weights[name].float() + delta).to(weights[name].dtype)
    return merged


def _adapter(files: CheckpointFiles) -> Weights:
    path = files.find("adapter_model.safetensors")
    return read_bin(files.need("adapter_model.bin")) if path is None else read_safetensors(path)
