"""What is checked of a model that vLLM runs before it is loaded, and prunings as vLLM is told."""

import dataclasses
from collections.abc import Sequence

from otprune import Selector
from otprune.pruning import Pruning
from otprune.registry import PRUNERS
from otprune.serving import ServedPruning
from otprune_lmms.models.protocol import ModelSource

_OURS = ("model", "dtype", "revision", "seed", "hf_overrides", "mm_processor_kwargs", "tokenizer")
"""Settings that follow from others, and may not be given."""


def check_source(source: ModelSource, prunings: Sequence[Pruning | None] = ()) -> None:
    """Check a source before it is loaded; see `models.check_source`."""
    for name in ("chat_template", "model_base", "device_map", "attn_implementation"):
        value = getattr(source, name)
        if value is not None:
            raise ValueError(f"{name} is not for the backend vllm, got {value!r}")
    for name in ("load_4bit", "load_8bit"):
        if getattr(source, name):
            raise ValueError(f"{name} is not for the backend vllm; give vllm: quantization")
    if not source.use_cache:
        raise ValueError("use_cache must be true for the backend vllm, got False")
    given = sorted(dict(source.engine).keys() & set(_OURS))
    if given:
        raise ValueError(f"vllm must not have {', '.join(given)}, which the model's own keys say")
    for pruning in prunings:
        served(pruning)


def served(pruning: Pruning | None) -> ServedPruning | None:
    """Return a pruning as vLLM is told of it; None for nothing.

    Raises:
        ValueError: vLLM cannot carry it out; one sentence.
    """
    if pruning is None:
        return None
    if pruning.inside or len(pruning.stages) != 1:
        raise ValueError(
            "layer must be 0 for the backend vllm, whose language model drops no tokens inside, "
            f"got {', '.join(type(method).__name__ for method in pruning.methods)}"
        )
    for name, usual in (("positions", (None, "compact")), ("compat", (None,)), ("target", (None,))):
        value = getattr(pruning, name)
        if value not in usual:
            raise ValueError(f"{name} must be left out for the backend vllm, got {value!r}")
    if pruning.keep_newlines:
        raise ValueError("keep_newlines is not for the backend vllm, got True")
    (stage,) = pruning.stages
    if stage.keep_ratio is None:
        raise ValueError(f"budgets must be keep_ratio for the backend vllm, got k={stage.k}")
    method = stage.method
    if not isinstance(method, Selector):
        raise ValueError(
            f"method must be a selector for the backend vllm, got {type(method).__name__}"
        )
    names = [name for name, one in PRUNERS.items() if one is type(method)]
    if not names:
        raise ValueError(f"method must be a registered one, got {type(method).__name__}")
    settings = {one.name: getattr(method, one.name) for one in dataclasses.fields(method)}
    return ServedPruning(names[0], stage.keep_ratio, settings)
