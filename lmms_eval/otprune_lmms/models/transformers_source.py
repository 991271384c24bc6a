"""What is checked of a model of transformers before it is loaded.

transformers is imported only where the checkpoint's configuration must be read.
"""

from collections.abc import Sequence
from typing import Any

from otprune.pruning import Pruning
from otprune_lmms.embedded import checkpoint_folder
from otprune_lmms.models.protocol import ModelSource


def check_source(source: ModelSource, prunings: Sequence[Pruning | None] = ()) -> None:
    """Check a source before it is loaded; see `models.check_source`."""
    if source.chat_template is not None:
        raise ValueError(
            "chat_template names a template of LLaVA; a checkpoint of transformers has its own, "
            f"got {source.chat_template!r}"
        )
    if source.model_base is not None:
        raise ValueError(
            f"model_base is for adapters of LLaVA; merge the adapter into {source.pretrained} first"
        )
    for name in ("min_pixels", "max_pixels"):
        value = getattr(source, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    layers = [stage.layer for one in prunings if one is not None for stage in one.stages]
    if not any(layers):
        return
    known = config_of(source).get_text_config().num_hidden_layers
    if max(layers) >= known:
        raise ValueError(
            f"layer must be in 0..{known - 1} for {source.pretrained} of {known} layers, "
            f"got {max(layers)}"
        )


def place_of(source: ModelSource) -> str:
    """Return the folder of a checkpoint, or its id."""
    return str(checkpoint_folder(source.pretrained) or source.pretrained)


def config_of(source: ModelSource) -> Any:
    """Return a checkpoint's configuration.

    Raises:
        ValueError: it has none that transformers can use.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(place_of(source), revision=source.revision)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{source.pretrained} has no usable configuration: {error}") from error
