"""The controls of an experiment: what any method must beat at equal tokens.

A method that is no better than random tokens, an even stride, pooled tokens or the image made
smaller has gained nothing; papers often leave some of these rows out.
"""

from collections.abc import Sequence
from typing import Any

from otprune_lmms.embedded import checkpoint_folder
from otprune_lmms.models.checkpoints import LLAVA, family_of_checkpoint
from otprune_lmms.models.protocol import ModelSource

SELECTING: dict[str, dict[str, Any]] = {"random": {"seeds": (0, 1, 2)}, "uniform": {}}
"""Controls that run in every model: random tokens, and an even stride over the raster order."""

MERGING: dict[str, dict[str, Any]] = {"pooling": {}, "downsample": {}}
"""Controls that need a model which can encode an image again, and whose tokens may be merged."""


def controls_for(models: Sequence[ModelSource]) -> dict[str, dict[str, Any]]:
    """Return the controls that all these models run, with their settings.

    Merging controls are among them where it is known without asking the hub that every model is
    LLaVA in its own layout: by its ``family``, or by the configuration in its folder. What an
    experiment holds must not depend on what a cache holds.
    """
    return SELECTING | MERGING if all(map(_is_llava, models)) else dict(SELECTING)


def _is_llava(source: ModelSource) -> bool:
    if source.backend is not None or source.family is not None:
        return source.backend is None and source.family == LLAVA
    named = source.pretrained
    on_the_hub = "/" in named and checkpoint_folder(named) is None
    return not on_the_hub and family_of_checkpoint(named, source.revision, ask=False) == LLAVA
