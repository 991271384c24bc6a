"""Families that need one thing more than the defaults."""

from collections.abc import Mapping
from typing import Any

from transformers.utils.generic import ModelOutput

from otprune.hf.families.llava import SquareFamily


class Llama4(SquareFamily):
    """Llama 4, which projects the encoder's last hidden state in its own `forward`."""

    features_in = "last_hidden_state"

    def _replaced(self, output: ModelOutput, features: Any) -> ModelOutput:
        return super()._replaced(output, features.reshape(-1, features.shape[-1]))


class VideoLlava(SquareFamily):
    """Video-LLaVA, whose `forward` calls the pixels of images otherwise than its encoder does."""

    def _argument(self, name: str, inputs: Mapping[str, Any]) -> str:
        return "pixel_values_images" if name == "pixel_values" else name
