"""What to prune, where, how much, and how it is carried out before the language model.

Torch only: it knows no model. `Pruning` holds `Stage`s, each a method with a budget and a layer, or
a layer pruner with its schedule; `make_pruning` makes one from a method's name. `Trace` records
what a call did.
"""

from otprune.pruning.settings import Positions, Pruning, Stage, make_pruning
from otprune.pruning.target import Match, Target
from otprune.pruning.trace import Trace, watched

__all__ = [
    "Match",
    "Positions",
    "Pruning",
    "Stage",
    "Target",
    "Trace",
    "make_pruning",
    "watched",
]
