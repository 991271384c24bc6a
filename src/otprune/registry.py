"""All methods by name: those of this package, and those of other packages.

Another package offers a method by an entry point of the group ``otprune.methods``: its name is the
method's name, its value ``module:Class``. Such a package imports this one, so its classes are
imported only when a name is looked up that is not built in, or when all names are listed.
"""

import dataclasses
import importlib.metadata
import inspect
import logging
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from types import MappingProxyType
from typing import Literal, TypeVar

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

__all__ = [
    "BUILT_IN",
    "LAYER_PRUNERS",
    "MERGERS",
    "PRUNERS",
    "Pruner",
    "SELECTORS",
    "make_pruner",
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
    "LastK",
    "MMTok",
    "OTPrune",
    "Pooling",
    "PruMerge",
    "PyramidDrop",
    "Random",
    "SCOPE",
    "SparseVLM",
    "TOPS",
    "ToMe",
    "TransPrune",
    "Uniform",
    "VTW",
    "VisPruner",
    "VisionZip",
    "W2Greedy",
]
"""What `otprune` exports from here: every method class of this package among it."""

logger = logging.getLogger(__name__)

ENTRY_POINTS = "otprune.methods"
"""Entry point group by which other packages offer methods."""

Pruner = Selector | Merger | LayerPruner
"""A method of any kind."""

MethodClass = type[Selector] | type[Merger] | type[LayerPruner]

_Kind = TypeVar("_Kind", bound=Method)

_BUILT_IN: dict[str, MethodClass] = {
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

BUILT_IN: Mapping[str, MethodClass] = MappingProxyType(_BUILT_IN)
"""The methods of this package by name; unlike `PRUNERS` it never changes."""


class Registry(MutableMapping[str, MethodClass]):
    """Methods by name. ``registry["mine"] = Mine`` adds one.

    Methods of other packages are imported when they are first needed. One that cannot be used (it
    cannot be imported, is no method class, or has a name that is taken) is left out, with one
    logged warning that names the distribution and the reason.
    """

    def __init__(self, built_in: Mapping[str, MethodClass]) -> None:
        self._methods = dict(built_in)
        self._lock = threading.RLock()
        self._plugins: Literal["not loaded", "loading", "loaded"] = "not loaded"

    def __getitem__(self, name: str) -> MethodClass:
        if name not in self._methods:
            self._load_plugins()
        return self._methods[name]

    def __setitem__(self, name: str, method: MethodClass) -> None:
        reason = _unusable(method)
        if reason is not None:
            raise ValueError(f"the method of name {name!r} must be a method class, got {reason}")
        self._methods[name] = method

    def __delitem__(self, name: str) -> None:
        self._load_plugins()
        del self._methods[name]

    def __iter__(self) -> Iterator[str]:
        self._load_plugins()
        return iter(self._methods)

    def __len__(self) -> int:
        self._load_plugins()
        return len(self._methods)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self)})"

    def _load_plugins(self) -> None:
        if self._plugins == "loaded":
            return
        # Another thread waits here. This thread comes by again where a package, while it is
        # imported, looks at the registry: it finds what is there so far.
        with self._lock:
            if self._plugins != "not loaded":
                return
            self._plugins = "loading"
            try:
                for entry in _entry_points():
                    self._add(entry)
                self._plugins = "loaded"
            finally:
                if self._plugins == "loading":
                    self._plugins = "not loaded"

    def _add(self, entry: importlib.metadata.EntryPoint) -> None:
        reason: str | None = "a method of this name exists already"
        if entry.name not in self._methods:
            try:
                method = entry.load()
            # Importing a package may raise anything, and no package may break the other methods.
            except (Exception, SystemExit) as error:  # noqa: BLE001
                reason = " ".join(f"{type(error).__name__}: {error}".split())
            else:
                reason = _unusable(method)
                if reason is None:
                    self._methods[entry.name] = method
        if reason is not None:
            logger.warning(
                "method %r of distribution %s is left out: %s", entry.name, _source(entry), reason
            )


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    """Return the entry points of methods, in an order that does not depend on the installation."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return sorted(found, key=lambda entry: (entry.name, _source(entry), entry.value))


def _source(entry: importlib.metadata.EntryPoint) -> str:
    return "(unknown)" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _unusable(method: object) -> str | None:
    """Return why an object is no method class; None if it is one."""
    if not isinstance(method, type) or not issubclass(method, Selector | Merger | LayerPruner):
        return f"{method!r}, which is no subclass of Selector, Merger or LayerPruner"
    if not dataclasses.is_dataclass(method):
        return f"{method!r}, which is no dataclass"
    if inspect.isabstract(method):
        missing = ", ".join(sorted(method.__abstractmethods__))
        return f"{method!r}, which does not implement {missing}"
    return None


class MethodsOfKind(Mapping[str, type[_Kind]]):
    """The methods of a registry that are of one kind; it follows what the registry holds."""

    def __init__(self, registry: Registry, kind: type[_Kind]) -> None:
        self._registry, self._kind = registry, kind

    def __getitem__(self, name: str) -> type[_Kind]:
        method = self._registry[name]
        if not issubclass(method, self._kind):
            raise KeyError(name)
        return method

    def __iter__(self) -> Iterator[str]:
        return (name for name, method in self._registry.items() if issubclass(method, self._kind))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"{self._kind.__name__}s({', '.join(self)})"


PRUNERS = Registry(BUILT_IN)
"""All methods by name."""

SELECTORS = MethodsOfKind(PRUNERS, Selector)
MERGERS = MethodsOfKind(PRUNERS, Merger)
LAYER_PRUNERS = MethodsOfKind(PRUNERS, LayerPruner)


def make_pruner(name: str, *, preset: str | None = None, **settings: object) -> Pruner:
    """Return the method ``name`` with the settings given.

    Settings that are not given come from the preset, if one is named, else from the method's
    defaults.

    Raises:
        ValueError: unknown name, preset or setting; the message lists the known ones. The method
            checks the values.
    """
    if not isinstance(name, str) or name not in PRUNERS:
        raise ValueError(f"unknown pruner {name!r}; known: {', '.join(sorted(PRUNERS))}")
    method = PRUNERS[name]
    if preset is not None:
        if preset not in method.presets:
            known = ", ".join(sorted(method.presets)) or "none"
            raise ValueError(f"unknown preset {preset!r} of pruner {name}; known: {known}")
        settings = {**method.presets[preset], **settings}
    known_settings = [field.name for field in dataclasses.fields(method)]
    for setting in settings:
        if setting not in known_settings:
            known = ", ".join(known_settings) or "none"
            raise ValueError(f"unknown setting {setting!r} of pruner {name}; known: {known}")
    return method(**settings)
