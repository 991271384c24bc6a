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
    """Video-LLaVA; its `forward` and its encoder have either name for the pixels of images."""

    def _argument(self, name: str, inputs: Mapping[str, Any]) -> str:
        names = ("pixel_values_images", "pixel_values")
        given = [one for one in names if inputs.get(one) is not None]
        return given[0] if name in names and given else name
