"""InternVL 2.5 and 3 in transformers' own layout: an image is one tile or several."""

from vllm.model_executor.models.interns1 import InternS1ForConditionalGeneration

from otprune_vllm.model import PrunedModel, pruned


@pruned
class OTPruneInternVLForConditionalGeneration(PrunedModel, InternS1ForConditionalGeneration):
    """InternVL, which vLLM runs as InternS1, with fewer tokens an image, all tiles together."""

    tells_shape = False
