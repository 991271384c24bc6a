"""Gemma 3: a square of tokens an image, and one more for each part of it that is shown enlarged."""

from typing import Any

from vllm.model_executor.models.gemma3_mm import Gemma3ForConditionalGeneration

from otprune_vllm.model import PrunedModel, pruned


@pruned
class OTPruneGemma3ForConditionalGeneration(PrunedModel, Gemma3ForConditionalGeneration):
    """Gemma 3 with fewer tokens an image, and as many fewer for each enlarged part.

    In transformers the tokens of an image see each other in both directions. Whether they do here
    is for vLLM's attention to say, pruned or not: on CPUs each sees those before it.
    """

    @staticmethod
    def unit_of(config: Any) -> int:
        """Return the tokens of an image or of an enlarged part."""
        return config.mm_tokens_per_image
