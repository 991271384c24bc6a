"""The controls of an experiment: what any method must beat at equal tokens.

A method that is no better than random tokens, an even stride, pooled tokens or the image made
smaller has gained nothing; papers often leave some of these rows out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otprune_lmms.embedded import checkpoint_folder
from otprune_lmms.models.checkpoints import LLAVA, family_of_checkpoint

if TYPE_CHECKING:
    from otprune_lmms.experiments.config import ModelChoice

SEEDS = (0, 1, 2)
"""Seeds of random selection as a control."""

SELECTING: dict[str, dict[str, Any]] = {"random": {"seeds": SEEDS}, "uniform": {}}
"""Controls that run in every model: random tokens, and an even stride over the raster order."""

MERGING: dict[str, dict[str, Any]] = {"pooling": {}, "downsample": {}}
"""Controls that need a model which can encode an image again, and whose tokens may be merged."""


def controls_for(models: "Sequence[ModelChoice]", folder: Path) -> dict[str, dict[str, Any]]:
    """Return the controls that all these models run, with their settings.

    Merging controls are among them where it is known without asking the hub that every model is
    LLaVA in its own layout: by its ``family``, or by the configuration in its folder. What an
    experiment holds must not depend on what a cache holds.

    Args:
        models: of the experiment.
        folder: of its file; relative checkpoint folders start there.
    """
    merging = all(_is_llava(model, folder) for model in models)
    return SELECTING | MERGING if merging else dict(SELECTING)


def _is_llava(model: "ModelChoice", folder: Path) -> bool:
    if model.backend is not None or model.family is not None:
        return model.backend is None and model.family == LLAVA
    named = model.source(folder).pretrained
    on_the_hub = "/" in named and checkpoint_folder(named) is None
    return not on_the_hub and family_of_checkpoint(named, model.revision, ask=False) == LLAVA
