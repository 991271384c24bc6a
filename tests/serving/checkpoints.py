"""Checkpoints of tiny random models that vLLM can load; run by the interpreter that has vLLM.

    python checkpoints.py FOLDER FAMILY [FAMILY ...]

They are those of `tiny_checkpoints`, with heads of 32 channels, the least that vLLM's attention on
CPUs has, and with weights named as in published checkpoints.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "hf"), str(ROOT / "lmms_eval" / "tests")]

import tiny_vlms  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_checkpoints import write_checkpoint  # noqa: E402
from tokenizers import AddedToken  # noqa: E402
from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402

TEXT = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
WIDER = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 128}
SECTIONS = {
    "qwen2_5_vl": {"mrope_section": [4, 6, 6]},
    "qwen3_vl": {"mrope_section": [6, 5, 5], "mrope_interleaved": True},
}
PUBLISHED = (
    ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("vision_tower.vision_model.", "vision_tower.vision_model."),
    ("vision_tower.", "vision_tower.vision_model."),
    ("model.language_model.", "language_model.model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
    ("lm_head.", "language_model.lm_head."),
)
"""How names of weights begin in transformers 5, and in published checkpoints of LLaVA and Gemma."""


def write(folder: Path, family: str) -> None:
    """Write a family's checkpoint."""
    plain = tiny_vlms._new

    def with_larger_heads(name: str, config: str, **settings: Any) -> Any:
        text = settings["text_config"] | TEXT
        if family in SECTIONS:
            text |= WIDER
            text["rope_parameters"] = text["rope_parameters"] | SECTIONS[family]
            settings["vision_config"] = settings["vision_config"] | TOWER
        return plain(name, config, **settings | {"text_config": text})

    tiny_vlms._new = with_larger_heads
    try:
        write_checkpoint(folder, family)
    finally:
        tiny_vlms._new = plain
    if family == "gemma3":
        name_newlines(folder)
    if family.startswith("llava") or family == "gemma3":
        publish(folder)
    if family in SECTIONS:
        # vLLM takes what a file leaves out for "no", transformers for its own default.
        processor = AutoProcessor.from_pretrained(folder)
        for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
            (folder / name).unlink()
        processor.save_pretrained(folder)


def name_newlines(folder: Path) -> None:
    """Make tokens of one to four newlines, which vLLM looks up in Gemma's vocabulary."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor.tokenizer.add_tokens([AddedToken("\n" * n, normalized=False) for n in range(1, 5)])
    model.resize_token_embeddings(len(processor.tokenizer))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def publish(folder: Path) -> None:
    """Name the weights as in published checkpoints, which vLLM reads."""
    file = folder / "model.safetensors"
    weights = {published(name): weight for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def published(name: str) -> str:
    """Return a weight's published name."""
    for now, before in PUBLISHED:
        if name.startswith(now):
            return before + name.removeprefix(now)
    return name


if __name__ == "__main__":
    for one in sys.argv[2:]:
        write(Path(sys.argv[1]) / one, one)
