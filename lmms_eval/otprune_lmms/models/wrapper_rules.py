"""How lmms-eval's own wrappers ask models of transformers: prompts, image sizes, answer lengths.

The unpruned baseline of a benchmark is comparable with published runs only if the model is asked as
in these runs. The rules are those of lmms-eval 0.7.3 (`lmms_eval.models.simple` and `.chat`).
"""

from dataclasses import dataclass

_ASSISTANT = "You are a helpful assistant."
_SMALLEST, _LARGEST = 256 * 28 * 28, 1_605_632


@dataclass(frozen=True, slots=True)
class WrapperRules:
    """What a wrapper does with a request.

    Attributes:
        system: the system's turn; None for none beside the chat template's own.
        keeps_places: whether a context's ``<image>`` is where the image is; otherwise it is removed
            and all images come first.
        min_pixels: smallest area that images are resized to, where the image processor has such
            a limit; None for the checkpoint's own.
        max_pixels: the largest one.
        max_new_tokens: longest answer where a task does not say.
        ignored_stops: stop texts of tasks that do not end an answer.
    """

    system: str | None = None
    keeps_places: bool = False
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_new_tokens: int = 1024
    ignored_stops: tuple[str, ...] = ()


RULES: dict[str, WrapperRules] = {
    "gemma3": WrapperRules(_ASSISTANT, max_new_tokens=128, ignored_stops=("\n\n",)),
    "glm4v": WrapperRules(max_new_tokens=8192),
    "glm4v_moe": WrapperRules(max_new_tokens=8192),
    "glm46v": WrapperRules(max_new_tokens=8192),
    "idefics2": WrapperRules(keeps_places=True),
    "internvl": WrapperRules(),
    "llama4": WrapperRules(max_new_tokens=4096),
    "llava": WrapperRules(keeps_places=True),
    "llava_next": WrapperRules(keeps_places=True),
    "llava_onevision": WrapperRules(keeps_places=True),
    "mistral3": WrapperRules(max_new_tokens=512),
    "qwen2_vl": WrapperRules(_ASSISTANT, False, 3136, 602_112, 128, ("\n\n",)),
    "qwen2_5_vl": WrapperRules(_ASSISTANT, False, _SMALLEST, _LARGEST, 32_768, ("\n\n",)),
    "qwen3_vl": WrapperRules(_ASSISTANT, False, _SMALLEST, _LARGEST, 128, ("\n\n",)),
    "qwen3_vl_moe": WrapperRules(_ASSISTANT, False, _SMALLEST, _LARGEST, 128, ("\n\n",)),
    "qwen3_5": WrapperRules(_ASSISTANT, False, 64 * 32 * 32, 128 * 32 * 32, 1024, ("\n\n",)),
    "qwen3_5_moe": WrapperRules(_ASSISTANT, False, 64 * 32 * 32, 128 * 32 * 32, 1024, ("\n\n",)),
}
"""By ``config.model_type``; the defaults serve families without a wrapper."""


def rules_of(model_type: str) -> WrapperRules:
    """Return the rules for a family."""
    return RULES.get(model_type, WrapperRules())
