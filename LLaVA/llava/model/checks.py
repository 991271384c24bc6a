"""What is checked of a model before its weights are placed: sentences in place of tracebacks."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.files import CheckpointFiles
from llava.images.layouts import resolutions
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.model.multimodal_encoder.builder import tower_type, vision_settings
from llava.model.multimodal_encoder.dinov2_encoder import Dinov2VisionTower

_ATTENTION_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_3"}

_UNUSABLE = (
    *(TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError),
    *(AssertionError, StrictDataclassError),
)
"""What transformers raises while it builds a model from settings that do not go together."""

_MOST_TILES = 256


@contextmanager
def usable(files: CheckpointFiles, key: str = "") -> Iterator[None]:
    """In this context errors about a configuration become a `CheckpointError` that names its file.

    Args:
        files: the checkpoint.
        key: the key in its ``config.json`` that the work is about, if it is one.
    """
    try:
        yield
    except CheckpointError:
        raise
    except _UNUSABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        place = f"config.json of {files.name}" + (f": {key}" if key else "")
        raise CheckpointError(f"{place} is not usable: {reason}") from error


def check_attention(name: str | None) -> None:
    """Raise ``ValueError`` for an attention implementation that transformers does not know.

    And for one whose package is not installed. Names of kernels on the hub (``owner/name``) are
    transformers' to check.
    """
    known = ("eager", *ALL_ATTENTION_FUNCTIONS.valid_keys())
    if name is not None and name not in known and not {*name} & {*"/|"}:
        raise ValueError(f"attn_implementation must be one of {', '.join(known)}; got {name!r}")
    package = _ATTENTION_PACKAGES.get(name or "")
    if package is not None and importlib.util.find_spec(package) is None:
        raise ValueError(
            f"attn_implementation {name} needs the package {package}, which is not installed "
            "(pip install --no-build-isolation 'otprune-llava[flash-attn]'); sdpa needs none"
        )


def tower_layers(config: Any) -> int:
    """Return how many blocks a configuration's vision tower has."""
    fields = vision_settings(config)
    return fields.get("num_hidden_layers") or tower_type(config).config_class().num_hidden_layers


def check_rope(files: CheckpointFiles, config: Any) -> None:
    """Check that a configuration gives rotary frequencies, which no stored weight holds.

    Raises:
        CheckpointError: it does not, or they are no finite numbers.
    """
    with usable(files, "rope_scaling or rope_parameters"):
        for name in ("short_factor", "long_factor"):
            factors = (config.rope_parameters or {}).get(name)
            if factors is not None and len(factors) != config.head_dim // 2:
                raise ValueError(
                    f"{name} must have head_dim / 2 = {config.head_dim // 2} entries, "
                    f"got {len(factors)}"
                )
        embedding: Any = LlamaRotaryEmbedding(config)
        if not torch.isfinite(embedding.inv_freq).all():
            raise ValueError("it gives frequencies that are not finite numbers")


def check_tiles(files: CheckpointFiles, model: LlavaLlamaForCausalLM) -> None:
    """Check the tiles that the image processor makes against the tower and the model's layouts.

    Raises:
        CheckpointError: tiles of another size than the tower takes; resolutions that are no whole
            tiles.
    """
    tower = model.get_vision_tower()
    side, config = tower.image_processor.side, model.config
    own = tower.config.image_size
    # DINOv2 interpolates its position embeddings to any size.
    if side != own and not isinstance(tower, Dinov2VisionTower):
        raise CheckpointError(
            f"the vision tower of {files.name} takes images of image_size {own}, its "
            f"preprocessor_config.json makes {side}"
        )
    if tower.num_patches < 1:
        raise CheckpointError(
            f"patch_size of the vision tower of {files.name} must be at most {side}, the side of "
            f"its tiles, got {tower.config.patch_size}"
        )
    if getattr(config, "image_aspect_ratio", None) != "anyres":
        return
    with usable(files):
        pairs = resolutions(getattr(config, "image_grid_pinpoints", None))
    for width, height in pairs:
        if width % side or height % side or not 0 < width * height <= _MOST_TILES * side**2:
            raise CheckpointError(
                f"config.json of {files.name}: image_grid_pinpoints must be multiples of the "
                f"tile's side {side} with at most {_MOST_TILES} tiles, got {[width, height]}"
            )
