"""A LLaVA of this package as transformers' own `LlavaForConditionalGeneration`."""

from typing import Any

import torch
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration

from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM

_TOWER = "model.vision_tower.vision_tower."
_PROJECTOR = "model.mm_projector."
_LAYERS = {"0": "linear_1", "2": "linear_2"}
"""Linear layers of a projector of two."""

_OURS = ("mm_", "tokenizer_", "image_", "unfreeze_", "tune_", "use_mm_", "freeze_")
"""How fields of the configuration begin that are not about the language model."""


def to_transformers(model: LlavaLlamaForCausalLM) -> LlavaForConditionalGeneration:
    """Return the model in transformers' layout, with a copy of its weights.

    Images of one tile, CLIP's, SigLIP's or DINOv2's tower and a projector of two layers, as in
    LLaVA-1.5. One id is added to the vocabulary, the last one, which is the image placeholder;
    its logit is the lowest number there is. `otprune.hf.pruned` prunes the result like any model
    of transformers.

    Raises:
        ValueError: images of several tiles, another projector.
    """
    config = model.config
    merge = getattr(config, "mm_patch_merge_type", None) or "flat"
    if merge != "flat" or getattr(config, "image_aspect_ratio", None) == "anyres":
        raise ValueError(
            "images must be of one tile, as in LLaVA-1.5, got mm_patch_merge_type "
            f"{merge!r} and image_aspect_ratio {getattr(config, 'image_aspect_ratio', None)!r}"
        )
    projector = getattr(config, "mm_projector_type", "linear")
    if projector != "mlp2x_gelu":
        raise ValueError(f"mm_projector_type must be mlp2x_gelu, got {projector!r}")
    tower = model.get_vision_tower()
    placeholder = config.vocab_size
    text = {
        name: value
        for name, value in config.to_dict().items()
        if not name.startswith(_OURS) and name not in ("architectures", "model_type")
    }
    # With an id of its own the placeholder's row of the output layer cannot be tied.
    text |= {"model_type": "llama", "vocab_size": placeholder + 1, "tie_word_embeddings": False}
    strategy = {"patch": "default", "cls_patch": "full"}[tower.select_feature]
    settings: dict[str, Any] = {
        "vision_config": tower.config.to_dict(),
        "text_config": text,
        "image_token_index": placeholder,
        "vision_feature_layer": tower.select_layer,
        # A tower without a CLS token has none to leave out.
        "vision_feature_select_strategy": strategy if tower.has_cls else "full",
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
    }
    made: Any = LlavaForConditionalGeneration._from_config(
        LlavaConfig(**settings), dtype=model.dtype, attn_implementation=_attention(model)
    )
    weights = {_name(name): weight.clone() for name, weight in model.state_dict().items()}
    embeddings = "model.language_model.embed_tokens.weight"
    weights[embeddings] = _longer(weights[embeddings], 0)
    weights["lm_head.weight"] = _longer(weights["lm_head.weight"], 0)
    made.load_state_dict(weights)
    made.lm_head.register_forward_hook(_without_placeholder)
    made.generation_config.update(**model.generation_config.to_dict())
    return made.to(model.device).eval()


def _attention(model: Any) -> str | None:
    return getattr(model.config, "_attn_implementation", None)


def _name(name: str) -> str:
    """Return what transformers calls one of our weights."""
    if name.startswith(_TOWER):
        return f"model.vision_tower.{name.removeprefix(_TOWER)}"
    if name.startswith(_PROJECTOR):
        number, _, kind = name.removeprefix(_PROJECTOR).partition(".")
        return f"model.multi_modal_projector.{_LAYERS[number]}.{kind}"
    return name if name == "lm_head.weight" else name.replace("model.", "model.language_model.", 1)


def _longer(rows: Tensor, value: float) -> Tensor:
    return torch.cat([rows, rows.new_full((1, rows.shape[1]), value)])


def _without_placeholder(module: Any, args: Any, logits: Tensor) -> Tensor:
    """Make the last id the least likely; no model of ours writes it."""
    lowest = torch.finfo(logits.dtype).min
    return torch.cat([logits[..., :-1], torch.full_like(logits[..., -1:], lowest)], dim=-1)
