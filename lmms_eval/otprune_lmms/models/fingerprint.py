"""The fingerprint of a model: a hash of its weights and all else that decides its answers."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_BLOCK = 1 << 23
"""Bytes of a weight summed at one time."""

_PRIME = 65521


class FingerprintError(RuntimeError):
    """A model whose fingerprint cannot be computed."""


_NO_CONTENT = {"_name_or_path", "name_or_path", "transformers_version", "architectures"}
"""Fields of a configuration about its origin, which do not change answers."""


@torch.no_grad()
def model_fingerprint(model: Any, tokenizer: Any, image_processor: Any) -> str:
    """Return SHA-256, as hex, over weights, dtypes, configuration, vocabulary and preprocessing.

    Every weight is read once on its device and enters by two integer sums of its 64-bit words, one
    of them weighted by position. So every bit counts, and the value does not depend on device,
    threads or the files' layout.

    Raises:
        FingerprintError: weights that are not in memory (offloaded to disk).
    """
    known = {
        "weights": [[name, *_sums(name, weight)] for name, weight in _weights(model)],
        "config": _without(model.config.to_dict(), _NO_CONTENT),
        "generation": _without(model.generation_config.to_dict(), _NO_CONTENT),
        "attention": getattr(model.config, "_attn_implementation", None),
        "vocabulary": _vocabulary(tokenizer),
        "images": repr(image_processor),
    }
    text = json.dumps(known, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _weights(model: Any) -> list[tuple[str, Tensor]]:
    return [(n, w) for n, w in sorted(model.state_dict().items()) if isinstance(w, Tensor)]


def _sums(name: str, weight: Tensor) -> tuple[str, list[int], int, int]:
    if weight.is_meta:
        raise FingerprintError(
            f"weight {name} is not in memory, so the model has no fingerprint: "
            "a journal needs a model that is not offloaded to disk"
        )
    flat = weight.detach().contiguous().flatten().view(torch.uint8)
    plain = weighted = 0
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        words = torch.zeros((len(block) + 7) // 8 * 8, dtype=torch.uint8, device=block.device)
        words[: len(block)] = block
        numbers = words.view(torch.int64)
        places = torch.arange(len(numbers), device=block.device) % _PRIME + 1 + start
        plain += int(numbers.sum())
        weighted += int((numbers * places).sum())
    return str(weight.dtype), list(weight.shape), plain % 2**64, weighted % 2**64


def _without(content: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


def _vocabulary(tokenizer: Any) -> str:
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    text = json.dumps([tokens, special], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
