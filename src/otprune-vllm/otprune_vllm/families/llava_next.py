"""LLaVA-1.6: the tiles of an image put together, rows ending in newline tokens, which compete."""

from vllm.model_executor.models.llava_next import LlavaNextForConditionalGeneration

from otprune_vllm.model import PrunedModel, pruned


@pruned
class OTPruneLlavaNextForConditionalGeneration(PrunedModel, LlavaNextForConditionalGeneration):
    """LLaVA-NeXT with fewer tokens an image."""

    tells_shape = False
