"""What is read, and the refusal of checkpoints of other families of models."""

from collections.abc import Mapping
from typing import Any

from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.files import CheckpointFiles

SUPPORTED = (
    "LLaVA-1.5 and LLaVA-1.6 on Llama or Vicuna: in the original layout (model_type llava or "
    "llava_llama, such as liuhaotian/llava-v1.5-7b and liuhaotian/llava-v1.6-vicuna-7b) or in "
    "transformers' own (llava or llava_next, such as llava-hf/llava-1.5-7b-hf)"
)

_BASES = ("llama", "vicuna")
_LONGEST = 80


def other_family(files: CheckpointFiles, raw: Mapping[str, Any]) -> CheckpointError:
    """Return the error for a checkpoint that is no LLaVA on Llama; it says of which family it is.

    Args:
        files: the checkpoint.
        raw: its ``config.json``.
    """
    kind = raw.get("model_type")
    said = f"of model_type {_shown(kind)}" if "model_type" in raw else "of no model_type"
    architectures = raw.get("architectures")
    if isinstance(architectures, list) and architectures:
        said += f" (architecture {', '.join(map(str, architectures))[:_LONGEST]})"
    text = raw.get("text_config")
    if isinstance(text, Mapping) and "model_type" in text:
        said += f" with a language model of type {_shown(text['model_type'])}"
    hint = ""
    if isinstance(kind, str) and kind in _BASES:
        hint = "; a language model alone is given as model_base of a projector or an adapter"
    return CheckpointError(
        f"config.json of {files.name} is {said}, which is not supported; supported are "
        f"{SUPPORTED}{hint}"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
