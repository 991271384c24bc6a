"""What is checked of a LLaVA before it is loaded; nothing heavy is imported for it."""

from collections.abc import Sequence

from llava.conversation import conv_templates
from otprune.pruning import Pruning
from otprune_lmms.models.protocol import ModelSource

CHAT_TEMPLATE = "vicuna_v1"
"""Name of the usual chat template."""


def check_source(source: ModelSource, prunings: Sequence[Pruning | None] = ()) -> None:
    """Check a source before it is loaded; see `models.check_source`."""
    template_of(source)
    if source.min_pixels is not None or source.max_pixels is not None:
        raise ValueError(
            "min_pixels and max_pixels are for families that take images of any size, got "
            f"{source.min_pixels} and {source.max_pixels} for LLaVA"
        )
    layers = [stage.layer for one in prunings if one is not None for stage in one.stages]
    if not any(layers):
        return
    from llava.checkpoint.config import read_config
    from llava.checkpoint.files import CheckpointFiles

    files = CheckpointFiles(source.pretrained, source.revision)
    known = read_config(files).model.num_hidden_layers
    if max(layers) >= known:
        raise ValueError(
            f"layer must be in 0..{known - 1} for {source.pretrained} of {known} layers, "
            f"got {max(layers)}"
        )


def template_of(source: ModelSource) -> str:
    """Return the name of a source's chat template.

    Raises:
        ValueError: an unknown one.
    """
    name = CHAT_TEMPLATE if source.chat_template is None else source.chat_template
    check_template(name)
    return name


def check_template(name: str) -> None:
    """Raise ``ValueError`` unless a chat template has this name."""
    if name not in conv_templates:
        known = ", ".join(conv_templates)
        raise ValueError(f"chat_template must be one of {known}; got {name!r}")
