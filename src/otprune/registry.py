"""All methods by name."""

import dataclasses
from typing import Any

from otprune.layer_pruner import LayerPruner
from otprune.layer_pruners.dart import DART
from otprune.layer_pruners.fastv import FastV
from otprune.layer_pruners.pyramiddrop import PyramidDrop
from otprune.layer_pruners.sparsevlm import SparseVLM
from otprune.layer_pruners.tops import TOPS
from otprune.layer_pruners.transprune import TransPrune
from otprune.layer_pruners.vtw import VTW
from otprune.merger import Merger
from otprune.mergers.downsample import Downsample
from otprune.mergers.pooling import Pooling
from otprune.mergers.prumerge import PruMerge
from otprune.mergers.tome import ToMe
from otprune.mergers.visionzip import VisionZip
from otprune.method import Method
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

PRUNERS: dict[str, type[Method]] = {
    "otprune": OTPrune,
    "w2greedy": W2Greedy,
    "divprune": DivPrune,
    "dpp": DPP,
    "herding": Herding,
    "facility_location": FacilityLocation,
    "kmedoids": KMedoids,
    "farthest_point": FarthestPoint,
    "fastervlm": FasterVLM,
    "vispruner": VisPruner,
    "scope": SCOPE,
    "holov": HoloV,
    "cdpruner": CDPruner,
    "mmtok": MMTok,
    "random": Random,
    "uniform": Uniform,
    "grid": Grid,
    "first_k": FirstK,
    "last_k": LastK,
    "visionzip": VisionZip,
    "prumerge": PruMerge,
    "tome": ToMe,
    "pooling": Pooling,
    "downsample": Downsample,
    "fastv": FastV,
    "pyramiddrop": PyramidDrop,
    "transprune": TransPrune,
    "sparsevlm": SparseVLM,
    "dart": DART,
    "tops": TOPS,
    "vtw": VTW,
}


SELECTORS: dict[str, type[Selector]] = {
    name: method for name, method in PRUNERS.items() if issubclass(method, Selector)
}
MERGERS: dict[str, type[Merger]] = {
    name: method for name, method in PRUNERS.items() if issubclass(method, Merger)
}
LAYER_PRUNERS: dict[str, type[LayerPruner]] = {
    name: method for name, method in PRUNERS.items() if issubclass(method, LayerPruner)
}


def make_pruner(name: str, *, preset: str | None = None, **settings: object) -> Any:
    """Return the method ``name`` with its defaults, a named preset, and ``settings`` over both.

    A `Selector`, a `Merger` or a `LayerPruner`.

    Raises:
        ValueError: unknown name, preset or setting; the message lists the known ones. Values are
            checked by the method itself.
    """
    if name not in PRUNERS:
        raise ValueError(f"unknown pruner {name!r}; known: {', '.join(sorted(PRUNERS))}")
    method = PRUNERS[name]
    if preset is not None:
        if preset not in method.presets:
            known = ", ".join(sorted(method.presets)) or "none"
            raise ValueError(f"unknown preset {preset!r} of pruner {name}; known: {known}")
        settings = {**method.presets[preset], **settings}
    known_settings = [field.name for field in dataclasses.fields(method)]  # type: ignore[arg-type]
    for setting in settings:
        if setting not in known_settings:
            known = ", ".join(known_settings) or "none"
            raise ValueError(f"unknown setting {setting!r} of pruner {name}; known: {known}")
    return method(**settings)
