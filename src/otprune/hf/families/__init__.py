"""One file a family: where images, placeholders, positions and layers of a model are.

A model whose ``config.model_type`` is not listed is treated by the defaults of `Family`, which
serve most of transformers.
"""

from typing import Any

from otprune.hf.families.cohere import AyaVision, Cohere2Vision
from otprune.hf.families.deepseek import DeepseekVL
from otprune.hf.families.family import (
    EncodedImages,
    Family,
    Modality,
    Unit,
    UnsupportedModelError,
)
from otprune.hf.families.gemma import Gemma3, PaliGemma
from otprune.hf.families.idefics import Idefics3
from otprune.hf.families.internvl import InternVL
from otprune.hf.families.llava import Llava, SquareFamily
from otprune.hf.families.llava_next import LlavaNext, LlavaOneVision
from otprune.hf.families.others import Llama4, VideoLlava
from otprune.hf.families.pixtral import Pixtral
from otprune.hf.families.qwen import Qwen3VL, QwenVL

__all__ = [
    "FAMILIES",
    "EncodedImages",
    "Family",
    "Modality",
    "Unit",
    "UnsupportedModelError",
    "family_of",
]

FAMILIES: dict[str, type[Family]] = {
    "aya_vision": AyaVision,
    "cohere2_vision": Cohere2Vision,
    "deepseek_vl": DeepseekVL,
    "deepseek_vl_hybrid": SquareFamily,
    "gemma3": Gemma3,
    "glm46v": QwenVL,
    "glm4v": QwenVL,
    "glm4v_moe": QwenVL,
    "got_ocr2": SquareFamily,
    "idefics3": Idefics3,
    "internvl": InternVL,
    "janus": SquareFamily,
    "lighton_ocr": Pixtral,
    "llama4": Llama4,
    "llava": Llava,
    "llava_next": LlavaNext,
    "llava_next_video": LlavaNext,
    "llava_onevision": LlavaOneVision,
    "mistral3": Pixtral,
    "ovis2": SquareFamily,
    "paddleocr_vl": QwenVL,
    "paligemma": PaliGemma,
    "qwen2_5_vl": QwenVL,
    "qwen2_vl": QwenVL,
    "qwen3_5": QwenVL,
    "qwen3_5_moe": QwenVL,
    "qwen3_vl": Qwen3VL,
    "qwen3_vl_moe": Qwen3VL,
    "smolvlm": Idefics3,
    "video_llama_3": QwenVL,
    "video_llava": VideoLlava,
    "vipllava": SquareFamily,
}
"""Families that differ from the defaults, by ``config.model_type``."""


def family_of(model: Any) -> Family:
    """Return a model as pruning sees it.

    Raises:
        UnsupportedModelError: visual tokens of the model cannot be pruned; the message says why.
    """
    if hasattr(model, "_orig_mod"):
        raise UnsupportedModelError(
            "model must be a model of transformers itself, got what torch.compile(model) returned; "
            "model.compile() compiles in place"
        )
    kind = getattr(getattr(model, "config", None), "model_type", None)
    return FAMILIES.get(str(kind), Family)(model)
