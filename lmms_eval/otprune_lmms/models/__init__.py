"""Models that the harness can run: one file for each family, loaded by name.

`protocol` defines what the engine needs of a model. Only the family files import model packages.
"""

from importlib import import_module

from otprune.checks import check_device
from otprune.pruning import Pruning
from otprune_lmms.models.checkpoints import LLAVA, TRANSFORMERS, family_of_checkpoint
from otprune_lmms.models.protocol import ModelSource, VisionLanguageModel

FAMILIES: dict[str, str] = {
    LLAVA: "otprune_lmms.models.llava",
    TRANSFORMERS: "otprune_lmms.models.transformers",
}
"""Modules by family; each has ``load``, and ``check_source`` unless `SOURCES` has it."""

SOURCES: dict[str, str] = {
    LLAVA: "otprune_lmms.models.llava_source",
    TRANSFORMERS: "otprune_lmms.models.transformers_source",
    "vllm": "otprune_lmms.models.vllm_source",
}
"""Modules with ``check_source`` for families and backends whose own import takes seconds."""

BACKENDS: dict[str, str] = {"vllm": "otprune_lmms.models.vllm"}
"""Modules by backend, for checkpoints in transformers' layout that another process runs."""


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
    layers = any(stage.layer for one in prunings if one is not None for stage in one.stages)
    name = _family(source, ask=layers)
    if name is not None:
        import_module(SOURCES.get(name, _module(name))).check_source(source, prunings)


def load_model(source: ModelSource) -> VisionLanguageModel:
    """Return a loaded model.

    Raises:
        ValueError: an unknown family, impossible settings, a device that is not there; a checkpoint
            that is incomplete, damaged or of another kind.
    """
    if source.device is not None:
        check_device(source.device)
    name = _family(source, ask=True)
    if name is None:
        raise ValueError(f"the configuration of {source.pretrained} cannot be read")
    return import_module(_module(name)).load(source)


def _module(name: str) -> str:
    return BACKENDS.get(name) or FAMILIES[name]


def _family(source: ModelSource, *, ask: bool) -> str | None:
    """Return the name of a source's backend or family; None where only the hub could tell it.

    Args:
        source: which model.
        ask: whether the hub is asked.
    """
    name = source.family
    if source.backend is not None:
        if source.backend not in BACKENDS:
            raise ValueError(
                f"backend must be one of {', '.join(BACKENDS)}, got {source.backend!r}"
            )
        if name not in (None, TRANSFORMERS):
            raise ValueError(
                f"family must be {TRANSFORMERS} for the backend {source.backend}, got {name!r}"
            )
        return source.backend
    if source.python is not None or source.engine:
        raise ValueError("python and vllm are for backend: vllm, got no backend")
    if name is None:
        if source.model_base is not None:
            name = LLAVA
        else:
            name = family_of_checkpoint(source.pretrained, source.revision, ask=ask)
            # Only LLaVA has templates by name.
            name = name or (None if source.chat_template is None else LLAVA)
    elif name not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}; got {name!r}")
    return name


__all__ = [
    "BACKENDS",
    "FAMILIES",
    "ModelSource",
    "VisionLanguageModel",
    "check_source",
    "load_model",
]
