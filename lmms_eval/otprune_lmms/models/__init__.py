"""Models that the harness can run: one file for each family, loaded by name.

`protocol` defines what the engine needs of a model. Only the family files import model packages.
"""

from importlib import import_module
from types import ModuleType

from otprune.checks import check_device
from otprune.pruning import Pruning
from otprune_lmms.models.protocol import DEFAULT_FAMILY, ModelSource, VisionLanguageModel

FAMILIES: dict[str, str] = {"llava": "otprune_lmms.models.llava"}
"""Modules by family; each has ``check_source`` and ``load``."""


def check_source(source: ModelSource, prunings: tuple[Pruning | None, ...] = ()) -> None:
    """Check a model before it is loaded.

    Args:
        source: which model.
        prunings: prunings that it must support; their layers are compared with the checkpoint's
            configuration.

    Raises:
        ValueError: an unknown family or chat template, no checkpoint, a layer that the model does
            not have.
    """
    _family(source.family).check_source(source, prunings)


def load_model(source: ModelSource) -> VisionLanguageModel:
    """Return a loaded model.

    Raises:
        ValueError: an unknown family, impossible settings, a device that is not there; a checkpoint
            that is incomplete, damaged or of another kind.
    """
    if source.device is not None:
        check_device(source.device)
    return _family(source.family).load(source)


def _family(name: str) -> ModuleType:
    if name not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}; got {name!r}")
    return import_module(FAMILIES[name])


__all__ = [
    "DEFAULT_FAMILY",
    "FAMILIES",
    "ModelSource",
    "VisionLanguageModel",
    "check_source",
    "load_model",
]
