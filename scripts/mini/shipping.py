"""A trained learner as a checkpoint in LLaVA's original layout."""

from pathlib import Path

import torch
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from llava.model.writer import write_checkpoint
from llava.tokenizer import LlavaTokenizer
from network import Learner, language_config
from tower import processor, read_tower, tower_config

SIDE = 224
"""Pixels along a side of a tile: 16 x 16 visual tokens."""


def assemble(learner: Learner, tower: Path, vocabulary: int) -> LlavaLlamaForCausalLM:
    """Return the whole model in float32: tower, projector and language model."""
    vision = {**tower_config().to_diff_dict(), "model_type": "dinov2"}
    tile = processor(SIDE)
    config = LlavaConfig(
        **{
            **language_config(vocabulary).to_diff_dict(),
            "model_type": "llava_llama",
            "tie_word_embeddings": True,
        },
        mm_vision_tower="dinov2-small-9",
        mm_vision_config=vision,
        mm_image_processor={
            "crop_size": tile.crop_size,
            "size": tile.size,
            "image_mean": list(tile.image_mean),
            "image_std": list(tile.image_std),
            "resample": tile.resample,
        },
        mm_vision_select_layer=-1,
        mm_vision_select_feature="patch",
        mm_hidden_size=vision.get("hidden_size", 384),
        mm_projector_type="mlp2x_gelu",
        mm_use_im_start_end=False,
        mm_use_im_patch_token=False,
        image_aspect_ratio="pad",
        tokenizer_model_max_length=2048,
    )
    model = LlavaLlamaForCausalLM(config).eval()
    parts = {
        "model.vision_tower.vision_tower.": read_tower(tower).state_dict(),
        "model.mm_projector.": learner.projector_weights(),
        "model.": learner.language.model.state_dict(),
        "lm_head.": learner.language.lm_head.state_dict(),
    }
    state = {prefix + name: t for prefix, part in parts.items() for name, t in part.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ValueError(f"parts must make a whole model; missing {missing}, left {unexpected}")
    return model


def package(learner: Learner, tower: Path, tokenizer_file: Path, out: Path) -> None:
    """Write the checkpoint in bfloat16."""
    tokenizer = LlavaTokenizer(tokenizer_file)
    model = assemble(learner, tower, tokenizer.vocab_size)
    write_checkpoint(model, tokenizer, out, dtype=torch.bfloat16)
