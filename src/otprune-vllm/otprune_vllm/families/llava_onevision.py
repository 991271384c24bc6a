"""LLaVA-OneVision: tiles as in LLaVA-1.6, interpolated where there are many."""

from vllm.model_executor.models.llava_onevision import LlavaOnevisionForConditionalGeneration

from otprune_vllm.model import PrunedModel, pruned


@pruned
class OTPruneLlavaOnevisionForConditionalGeneration(
    PrunedModel, LlavaOnevisionForConditionalGeneration
):
    """LLaVA-OneVision with fewer tokens an image."""

    tells_shape = False
