"""OTPrune: visual tokens go in, the positions of the tokens worth keeping come out."""

from otprune.budget import resolve_budget
from otprune.layer_pruner import Kept, LayerPruner, LayerView, Modules
from otprune.merger import Merger, Mixture
from otprune.method import Method
from otprune.registry import PRUNERS, make_pruner
from otprune.selector import Selector
from otprune.signals import Signals

__all__ = [
    "PRUNERS",
    "Kept",
    "LayerPruner",
    "LayerView",
    "Merger",
    "Method",
    "Mixture",
    "Modules",
    "Selector",
    "Signals",
    "make_pruner",
    "resolve_budget",
]
__version__ = "0.1.0"
