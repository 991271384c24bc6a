"""Which wrappers of lmms-eval are pruned, under ``otprune_<id>``, and why others are not."""

from typing import NamedTuple

from otprune_lmms.suggestions import did_you_mean

PREFIX = "otprune_"


class Kinds(NamedTuple):
    """The classes that lmms-eval has of a wrapper.

    Attributes:
        simple: it takes prompts as text.
        chat: it takes prompts as messages.
    """

    simple: bool
    chat: bool


WRAPPERS = {
    "gemma3": Kinds(simple=True, chat=False),
    "glm4v": Kinds(simple=True, chat=False),
    "idefics2": Kinds(simple=True, chat=False),
    "internvl_hf": Kinds(simple=False, chat=True),
    "llava_hf": Kinds(simple=True, chat=True),
    "mistral3_vl": Kinds(simple=True, chat=False),
    "qwen2_vl": Kinds(simple=True, chat=False),
    "qwen2_5_vl": Kinds(simple=True, chat=True),
    "qwen3_vl": Kinds(simple=True, chat=True),
    "qwen3_5": Kinds(simple=True, chat=True),
}
"""Wrappers that call `generate` of a model of transformers, by lmms-eval's ids; all are tested."""

STOCK_IDS = tuple(PREFIX + wrapper for wrapper in WRAPPERS)

_OWN_CODE = (
    "cambrians", "internvideo2", "internvideo2_5", "internvl", "internvl2", "internvl3",
    "internvl3_5", "kimi_audio", "minicpm_o", "minicpm_v", "minimonkey", "neo_ov", "ola",
    "ovis_u1", "phi3v", "phi4_multimodal", "qwen_vl", "videochat2", "videochat_flash",
    "xcomposer2_4KHD", "xcomposer2d5",
)  # fmt: skip
"""Wrappers of models whose code comes with the checkpoint, or from a repository of their own."""

_OTHER_ENGINES = ("vllm", "vllm_generate", "sglang", "llava_sglang", "aero_realtime_vllm")

_FAILING = ("huggingface", "async_hf_model")
"""Wrappers that fail unpruned, with the transformers that is required here."""


def refusal(model: str) -> str | None:
    """Return why there is no model of this name; None for one that there is, or of others."""
    if not model.startswith(PREFIX) or model in (*STOCK_IDS, "otprune_llava"):
        return None
    wrapper = model.removeprefix(PREFIX)
    reason = "is not known"
    if wrapper in _OWN_CODE:
        reason = (
            f"is not possible: lmms-eval's wrapper {wrapper} runs code of the model's authors, "
            "and otprune.hf prunes models of transformers alone"
        )
    elif wrapper in _OTHER_ENGINES:
        reason = f"is not possible: lmms-eval's wrapper {wrapper} answers in another engine"
    elif wrapper in _FAILING:
        reason = f"is not possible: lmms-eval's wrapper {wrapper} fails with transformers 5.23"
    known = ", ".join(STOCK_IDS)
    return f"--model {model} {reason}; pruned wrappers are {known}{did_you_mean(model, STOCK_IDS)}"
