"""LLaVA-1.5 and relatives: an image is one square of patches."""

from vllm.model_executor.models.llava import LlavaForConditionalGeneration

from otprune_vllm.model import PrunedModel, pruned


@pruned
class OTPruneLlavaForConditionalGeneration(PrunedModel, LlavaForConditionalGeneration):
    """Llava with fewer tokens an image."""
