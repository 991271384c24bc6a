"""What to prune, where and how much; and pruning before the language model.

Torch only; no model is known here. `Pruning` holds `Stage`s, each a method with a budget and a
layer, or a layer pruner with its schedule; `make_pruning` makes one from a method's name. `Trace`
records what a call did. A model that prunes uses `choose`, `questions` and `image_tokens`.
"""

from otprune.pruning.image_tokens import ImageTokens
from otprune.pruning.settings import (
    PAPER_RATIO,
    Positions,
    Pruning,
    Stage,
    make_pruning,
    pruning_by_name,
)
from otprune.pruning.target import Match, Target
from otprune.pruning.trace import Trace, watched

__all__ = [
    "PAPER_RATIO",
    "ImageTokens",
    "Match",
    "Positions",
    "Pruning",
    "Stage",
    "Target",
    "Trace",
    "make_pruning",
    "pruning_by_name",
    "watched",
]
