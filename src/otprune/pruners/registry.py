"""All selectors by name."""

import dataclasses

from otprune.pruners.divprune import DivPrune
from otprune.pruners.dpp import DPP
from otprune.pruners.facility_location import FacilityLocation
from otprune.pruners.farthest_point import FarthestPoint
from otprune.pruners.first_k import FirstK
from otprune.pruners.grid import Grid
from otprune.pruners.herding import Herding
from otprune.pruners.kmedoids import KMedoids
from otprune.pruners.last_k import LastK
from otprune.pruners.otprune import OTPrune
from otprune.pruners.random import Random
from otprune.pruners.uniform import Uniform
from otprune.pruners.w2greedy import W2Greedy
from otprune.selector import Selector

PRUNERS: dict[str, type[Selector]] = {
    "otprune": OTPrune,
    "w2greedy": W2Greedy,
    "divprune": DivPrune,
    "dpp": DPP,
    "herding": Herding,
    "facility_location": FacilityLocation,
    "kmedoids": KMedoids,
    "farthest_point": FarthestPoint,
    "random": Random,
    "uniform": Uniform,
    "grid": Grid,
    "first_k": FirstK,
    "last_k": LastK,
}


def make_pruner(name: str, *, preset: str | None = None, **settings: object) -> Selector:
    """Return the selector ``name`` with its defaults, a named preset, and ``settings`` over both.

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
