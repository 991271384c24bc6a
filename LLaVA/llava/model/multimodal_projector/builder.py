"""Projectors from the vision tower's channels to the language model's."""

import re
from typing import Any

from torch import nn


def build_vision_projector(config: Any) -> nn.Module:
    """Return the projector that ``config.mm_projector_type`` names.

    "linear" is one layer, "mlp2x_gelu" (LLaVA-1.5 and 1.6) two with a GELU between, and so on;
    "identity" returns its input.

    Raises:
        ValueError: another type, or "identity" between unequal channels.
    """
    kind = getattr(config, "mm_projector_type", "linear")
    channels, hidden = config.mm_hidden_size, config.hidden_size
    if kind == "linear":
        return nn.Linear(channels, hidden)
    if kind == "identity":
        if channels != hidden:
            raise ValueError(
                f"mm_projector_type identity needs mm_hidden_size = hidden_size = {hidden}, "
                f"got {channels}"
            )
        return nn.Identity()
    depth = re.fullmatch(r"mlp([1-9]\d*)x_gelu", kind)
    if depth is None:
        raise ValueError(
            f"mm_projector_type must be linear, identity or mlp<depth>x_gelu, got {kind!r}"
        )
    layers: list[nn.Module] = [nn.Linear(channels, hidden)]
    for _ in range(int(depth[1]) - 1):
        layers += [nn.GELU(), nn.Linear(hidden, hidden)]
    return nn.Sequential(*layers)
