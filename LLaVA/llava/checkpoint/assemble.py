"""All weights of a model, from a checkpoint, its base model and its vision tower."""

import logging

from llava.checkpoint.config import CheckpointConfig
from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.files import CheckpointFiles
from llava.checkpoint.layouts import from_hf, from_original, from_tower, is_tower, is_weight
from llava.checkpoint.lora import ADAPTER, merged
from llava.checkpoint.shards import SOURCES, Weights, read_bin, read_weights

logger = logging.getLogger(__name__)


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
    if files.find(ADAPTER):
        raise CheckpointError(f"{files.name} is a LoRA adapter: give its base as model_base")
    if files.find("mm_projector.bin") and not any(map(files.find, SOURCES)):
        raise CheckpointError(f"{files.name} is a projector: give its base as model_base")


def _on_top(files: CheckpointFiles, weights: Weights) -> Weights:
    """Return the weights of a base that a projector or an adapter changes."""
    if files.find(ADAPTER) is None:
        path = files.need("mm_projector.bin")
        return {_plain(name): tensor for name, tensor in read_bin(path).items()}
    changed = from_original(
        {_plain(n): t for n, t in read_bin(files.need("non_lora_trainables.bin")).items()}
    )
    return changed | merged(files, weights)


def _plain(name: str) -> str:
    """Return a name without the prefix ``base_model.model.`` of training wrappers."""
    name = name.removeprefix("base_model.")
    return name.removeprefix("model.") if name.startswith("model.model.") else name
