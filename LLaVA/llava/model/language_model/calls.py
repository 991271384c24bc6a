"""Checks of a call's arguments, before anything is computed."""

from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from llava.constants import IMAGE_TOKEN_INDEX

_LONGEST_ANSWER = 1024

_NOT_INSIDE = (
    "assistant_model",
    "prompt_lookup_num_tokens",
    "prefill_chunk_size",
    "cache_implementation",
    "custom_generate",
    "penalty_alpha",
    "dola_layers",
)
"""Ways of generating that cut, copy or preallocate caches, or split the prompt."""

_NEVER = ("assistant_early_exit",)
"""It calls generate() again, with embeddings and with fewer layers."""


def check_generation(kwargs: dict[str, Any], own: GenerationConfig | None, *, inside: bool) -> None:
    """Raise ``ValueError`` for ways of generating that do not work with images or a pruned cache.

    Args:
        kwargs: arguments of `generate`.
        own: the model's generation settings.
        inside: whether something is pruned inside the language model.
    """
    configs = (kwargs.get("generation_config"), own)
    for name in _NEVER + (_NOT_INSIDE if inside else ()):
        values = [kwargs.get(name), *(getattr(config, name, None) for config in configs)]
        value = next((v for v in values if v is not None and v != "dynamic"), None)
        if value is not None:
            what = "generate" if name in _NEVER else "pruning inside the language model"
            raise ValueError(f"{what} does not go with {name}={value!r}")


def with_defaults(kwargs: dict[str, Any]) -> None:
    """Limit an answer that has no limit, and remove sampling settings of greedy decoding."""
    limits = ("max_new_tokens", "max_length", "generation_config")
    if all(kwargs.get(name) is None for name in limits):
        kwargs["max_new_tokens"] = _LONGEST_ANSWER
    if kwargs.get("do_sample") is False:
        for name in ("temperature", "top_p", "top_k"):
            # lmms-eval passes them along with do_sample=False, and each brings a warning.
            kwargs.pop(name, None)


def check_continuing(input_ids: Tensor | None, images: bool) -> None:
    """Raise ``ValueError`` for images in a call that continues a cache or has embeddings."""
    if images:
        raise ValueError("images go with the prompt's ids, before anything is cached")
    # A single id is not checked: reading it would wait for the device at every decoding step.
    if input_ids is None or input_ids.shape[1] == 1:
        return
    if bool((input_ids == IMAGE_TOKEN_INDEX).any()):
        raise ValueError("an <image> must stand in the prompt, before anything is cached")


def check_even(cache: Any, layers: int) -> None:
    """Raise ``ValueError`` unless all layers of a cache hold equally many positions."""
    held = sorted({int(cache.get_seq_length(layer)) for layer in range(layers)})
    if len(held) > 1:
        raise ValueError(
            "pruning inside the language model needs a cache of its own for each prompt, got one "
            f"whose layers hold {held[0]} to {held[-1]} positions"
        )
