"""Qwen2.5-VL: images of any size, positions of three axes."""

from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from otprune_vllm.model import PrunedModelWithPlaces, pruned


@pruned
class OTPruneQwen2_5_VLForConditionalGeneration(
    PrunedModelWithPlaces, Qwen2_5_VLForConditionalGeneration
):
    """Qwen2.5-VL with fewer tokens an image."""
