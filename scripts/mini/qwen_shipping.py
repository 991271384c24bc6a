"""qwen-mini as a checkpoint in transformers' own layout."""

import json
import shutil
from pathlib import Path

import torch
from qwen import QwenLearner, model_config
from qwen_tower import DEVIATION, GRID, MEAN, PATCH
from qwen_vocabulary import SPECIAL
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig, Qwen3VLForConditionalGeneration

SMALLEST, LARGEST = (8 * PATCH) ** 2, (GRID * PATCH) ** 2
"""Pixels of an image: 112 x 112, 64 visual tokens, to 224 x 224, 256 of them."""


def assemble(learner: QwenLearner, tower: dict[str, Tensor]) -> Qwen3VLForConditionalGeneration:
    """Return the whole model in float32.

    Args:
        learner: mergers and language model.
        tower: weights of the tower, without mergers.
    """
    pieces = len(learner.head) - len(SPECIAL)
    model = Qwen3VLForConditionalGeneration(model_config(pieces)).eval()
    state = {f"model.visual.{name}": tensor for name, tensor in tower.items()}
    for name, tensor in learner.state_dict().items():
        part = "" if name.startswith("language_model.") else "visual."
        state[f"model.{part}{name}"] = tensor
    state["lm_head.weight"] = learner.head
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ValueError(f"parts must make a whole model; missing {missing}, left {unexpected}")
    return model


def package(learner: QwenLearner, tower: dict[str, Tensor], tokenizer: Path, out: Path) -> None:
    """Write the checkpoint in bfloat16."""
    model = assemble(learner, tower)
    out.mkdir(parents=True, exist_ok=True)
    end, pad = (
        model.config.text_config.vocab_size - len(SPECIAL) + 2,
        model.config.text_config.pad_token_id,
    )
    model.config.architectures = ["Qwen3VLForConditionalGeneration"]
    model.config.dtype = torch.bfloat16
    model.config.text_config.dtype = model.config.vision_config.dtype = torch.bfloat16
    model.config.text_config.eos_token_id = end
    model.config.save_pretrained(out)
    GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad, do_sample=False).save_pretrained(
        out
    )
    kept = {
        name: tensor.bfloat16().contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(kept, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    preprocessor = {
        "do_convert_rgb": True,
        "image_mean": list(MEAN),
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": list(DEVIATION),
        "merge_size": 1,
        "patch_size": PATCH,
        "processor_class": "Qwen3VLProcessor",
        "resample": 3,
        "size": {"longest_edge": LARGEST, "shortest_edge": SMALLEST},
        "temporal_patch_size": 2,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / name, out / name)
