"""Qwen3-VL: as Qwen2.5-VL, and features for the first decoder layers beside each token."""

from vllm.model_executor.models.qwen3_vl import Qwen3VLForConditionalGeneration

from otprune_vllm.model import PrunedModelWithPlaces, pruned


@pruned
class OTPruneQwen3VLForConditionalGeneration(
    PrunedModelWithPlaces, Qwen3VLForConditionalGeneration
):
    """Qwen3-VL with fewer tokens an image, and as many features for its first layers."""

    merges = False
