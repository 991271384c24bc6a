"""The names of weights in stored layouts, and in this package.

In this package they are those of the original layout, except for the tower's, which follow today's
transformers: without ``vision_model.`` of CLIP and SigLIP, and with other names of DINOv2's
attention.
"""

import re
from collections.abc import Iterable

from torch import Tensor

from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.shards import Weights

TOWER = "model.vision_tower.vision_tower."
"""Prefix of the vision tower's weights in the original layout and in this package."""

_LAYER = re.compile(r"^(model\.layers\.)(\d{1,9})\.")
_BLOCK = re.compile(rf"^({re.escape(TOWER)}encoder\.layers?\.)(\d{{1,9}})\.")

_NO_WEIGHTS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|position_ids|masked_bias)$")
"""Buffers in old checkpoints; they follow from the configuration."""

_HF = (
    (re.compile(r"^(model\.)?language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^language_model\.model\."), "model."),
    (re.compile(r"^model\.language_model\."), "model."),
    (re.compile(r"^(model\.)?vision_tower\."), TOWER),
    (re.compile(r"^(model\.)?multi_modal_projector\.linear_1\."), "model.mm_projector.0."),
    (re.compile(r"^(model\.)?multi_modal_projector\.linear_2\."), "model.mm_projector.2."),
    (re.compile(r"^(model\.)?image_newline$"), "model.image_newline"),
)
"""Names of transformers' own layout (``llava-hf/*``), which has had three versions of them."""

_TOWER_NAMES = (
    (re.compile(r"^vision_model\."), ""),
    (re.compile(r"\.attention\.attention\.query\."), ".attention.q_proj."),
    (re.compile(r"\.attention\.attention\.key\."), ".attention.k_proj."),
    (re.compile(r"\.attention\.attention\.value\."), ".attention.v_proj."),
    (re.compile(r"\.attention\.output\.dense\."), ".attention.o_proj."),
)
_TEXT_ENCODER = re.compile(
    r"^(text_model\.|text_projection|visual_projection|logit_scale|logit_bias)"
)
"""Weights of the text encoders in CLIP and SigLIP repositories."""


def is_weight(name: str) -> bool:
    """Return whether a stored name is that of a weight, not of such a buffer."""
    return _NO_WEIGHTS.search(name) is None


def from_original(weights: Weights) -> Weights:
    """Return weights of the original layout under the names of this package."""
    return {_original_name(name): tensor for name, tensor in weights.items()}


def from_hf(weights: Weights) -> Weights:
    """Return weights of transformers' LLaVA layout under the names of this package."""
    return {_hf_name(name): tensor for name, tensor in weights.items()}


def from_tower(weights: Weights) -> Weights:
    """Return weights of a tower's own repository under the names of this package, without text."""
    return {
        TOWER + _tower_name(name): tensor
        for name, tensor in weights.items()
        if not _TEXT_ENCODER.match(name)
    }


def is_tower(name: str) -> bool:
    """Return whether a name of the original layout belongs to the vision tower."""
    return name.startswith("model.vision_tower.")


def check_complete(weights: Weights, shapes: dict[str, tuple[int, ...]], source: str) -> None:
    """Check that the weights are exactly those of the model, with their shapes.

    Raises:
        CheckpointError: names missing, unknown or of another shape, or no floating-point numbers;
            the message lists some.
    """
    missing = [name for name in shapes if name not in weights]
    if missing:
        raise CheckpointError(f"{source} lacks {_some(missing)}")
    unexpected = [name for name in weights if name not in shapes]
    if unexpected:
        raise CheckpointError(f"{source} holds {_some(unexpected)}, which the model does not have")
    for name, shape in shapes.items():
        if tuple(weights[name].shape) != shape:
            raise CheckpointError(
                f"{source} holds {name} of shape {tuple(weights[name].shape)}, "
                f"its config.json means {shape}"
            )
        if not weights[name].is_floating_point():
            raise CheckpointError(
                f"{source} holds {name} of {weights[name].dtype}, weights are floating-point"
            )


def check_layers(weights: Weights, layers: int, tower_layers: int, source: str) -> None:
    """Check the numbers of layers against the weights, which costs nothing before a model is built.

    Args:
        weights: under the names of this package.
        layers: decoder layers by the configuration.
        tower_layers: blocks of the vision tower by its configuration.
        source: name of the checkpoint.

    Raises:
        CheckpointError: the weights have more or fewer layers.
    """
    where = "num_hidden_layers in config.json"
    check_numbers(weights, _LAYER, layers, where, source)
    check_numbers(weights, _BLOCK, tower_layers, f"the vision tower's {where}", source)


def check_numbers(
    weights: Weights, pattern: re.Pattern[str], layers: int, key: str, source: str
) -> None:
    """Check that the weights have layers 0 to ``layers`` - 1.

    Args:
        weights: by name.
        pattern: its groups are what stands before a layer's number in a name, and the number.
        layers: how many there are by the configuration.
        key: what messages call that number.
        source: name of the checkpoint.

    Raises:
        CheckpointError: the weights have more or fewer layers.
    """
    found = {int(match[2]): match[1] for name in weights if (match := pattern.match(name))}
    lacking = next((n for n in range(min(layers, len(found) + 1)) if n not in found), None)
    if lacking is not None:
        prefix = next(iter(found.values()), "layer ")
        raise CheckpointError(f"{source} lacks {prefix}{lacking}: {key} says {layers}")
    beyond = min((number for number in found if number >= layers), default=None)
    if beyond is not None:
        raise CheckpointError(
            f"{source} holds {found[beyond]}{beyond}, which the model does not have: "
            f"{key} says {layers}"
        )


def shapes_of(named: Iterable[tuple[str, Tensor]]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by name."""
    return {name: tuple(tensor.shape) for name, tensor in named}


def stored_name(name: str, clip_like: bool) -> str:
    """Return the original layout's name of a weight; CLIP and SigLIP have ``vision_model.``."""
    if clip_like and name.startswith(TOWER):
        return f"{TOWER}vision_model.{name.removeprefix(TOWER)}"
    return name


def _original_name(name: str) -> str:
    if name.startswith(TOWER):
        return TOWER + _tower_name(name.removeprefix(TOWER))
    return name


def _hf_name(name: str) -> str:
    for pattern, replacement in _HF:
        if pattern.match(name):
            return _original_name(pattern.sub(replacement, name))
    return name


def _tower_name(name: str) -> str:
    for pattern, replacement in _TOWER_NAMES:
        name = pattern.sub(replacement, name)
    return name


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
