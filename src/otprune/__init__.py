"""OTPrune: visual tokens go in, the positions of the tokens worth keeping come out.

Every method is a class that can be imported from here; `make_pruner` makes one by name.
"""

from otprune import registry
from otprune.budget import resolve_budget
from otprune.layer_pruner import Kept, LayerPruner, LayerView, Modules
from otprune.merger import Merger, Mixture
from otprune.method import Method

# All method classes are named in one place, the registry.
from otprune.registry import *  # noqa: F403
from otprune.selector import Selector
from otprune.signals import Signals

__all__ = [
    "Kept",
    "LayerPruner",
    "LayerView",
    "Merger",
    "Method",
    "Mixture",
    "Modules",
    "Selector",
    "Signals",
    "resolve_budget",
]
__all__ += registry.__all__
__version__ = "0.1.0"
