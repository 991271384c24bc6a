"""OTPrune: visual tokens go in, the positions of the tokens worth keeping come out.

Every method is a class that can be imported from here; `make_pruner` makes one by name.
"""

from otprune.budget import resolve_budget
from otprune.layer_pruner import Kept, LayerPruner, LayerView, Modules
from otprune.layer_pruners.dart import DART
from otprune.layer_pruners.fastv import FastV
from otprune.layer_pruners.pyramiddrop import PyramidDrop
from otprune.layer_pruners.sparsevlm import SparseVLM
from otprune.layer_pruners.tops import TOPS
from otprune.layer_pruners.transprune import TransPrune
from otprune.layer_pruners.vtw import VTW
from otprune.merger import Merger, Mixture
from otprune.mergers.downsample import Downsample
from otprune.mergers.pooling import Pooling
from otprune.mergers.prumerge import PruMerge
from otprune.mergers.tome import ToMe
from otprune.mergers.visionzip import VisionZip
from otprune.method import Method
from otprune.registry import (
    BUILT_IN,
    LAYER_PRUNERS,
    MERGERS,
    PRUNERS,
    SELECTORS,
    Pruner,
    make_pruner,
)
from otprune.selector import Selector
from otprune.selectors.cdpruner import CDPruner
from otprune.selectors.divprune import DivPrune
from otprune.selectors.dpp import DPP
from otprune.selectors.facility_location import FacilityLocation
from otprune.selectors.farthest_point import FarthestPoint
from otprune.selectors.fastervlm import FasterVLM
from otprune.selectors.first_k import FirstK
from otprune.selectors.grid import Grid
from otprune.selectors.herding import Herding
from otprune.selectors.holov import HoloV
from otprune.selectors.kmedoids import KMedoids
from otprune.selectors.last_k import LastK
from otprune.selectors.mmtok import MMTok
from otprune.selectors.otprune import OTPrune
from otprune.selectors.random import Random
from otprune.selectors.scope import SCOPE
from otprune.selectors.uniform import Uniform
from otprune.selectors.vispruner import VisPruner
from otprune.selectors.w2greedy import W2Greedy
from otprune.signals import Signals

__all__ = [
    "BUILT_IN",
    "CDPruner",
    "DART",
    "DPP",
    "DivPrune",
    "Downsample",
    "FacilityLocation",
    "FarthestPoint",
    "FastV",
    "FasterVLM",
    "FirstK",
    "Grid",
    "Herding",
    "HoloV",
    "KMedoids",
    "Kept",
    "LAYER_PRUNERS",
    "LastK",
    "LayerPruner",
    "LayerView",
    "MERGERS",
    "MMTok",
    "Merger",
    "Method",
    "Mixture",
    "Modules",
    "OTPrune",
    "PRUNERS",
    "Pooling",
    "PruMerge",
    "Pruner",
    "PyramidDrop",
    "Random",
    "SCOPE",
    "SELECTORS",
    "Selector",
    "Signals",
    "SparseVLM",
    "TOPS",
    "ToMe",
    "TransPrune",
    "Uniform",
    "VTW",
    "VisPruner",
    "VisionZip",
    "W2Greedy",
    "make_pruner",
    "resolve_budget",
]
__version__ = "0.1.0"
