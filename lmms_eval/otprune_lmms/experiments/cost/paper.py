"""The TFLOPs that OTPrune and DivPrune print, from lengths alone: nothing is measured here.

What the script ``tflops.py`` beside the released code computes: multiply-adds by "2ndm" of one
prefill for each of the 11 benchmarks, with a typical question's text tokens and without the 35
tokens of the system prompt. A table's TFLOPs are the mean over its benchmarks, its percentage is
the mean of the benchmarks' ratios, which is not the ratio of the means.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from otprune import resolve_budget
from otprune.cost import VICUNA_7B, VICUNA_13B, Convention, DecoderShape, prefill_multiply_adds

TEXT_TOKENS = {
    "coco2017_cap_val": 15,
    "flickr30k_test": 15,
    "gqa": 23,
    "mmbench_en_dev_static": 83,
    "mme": 25,
    "mmmu_val": 113,
    "nocaps_val": 15,
    "ok_vqa_val2014": 39,
    "pope": 21,
    "scienceqa_img": 91,
    "seedbench": 57,
}
"""Text tokens of a question, by task."""

VISUAL_TOKENS_ANYRES = {
    "coco2017_cap_val": 2225,
    "flickr30k_test": 1922,
    "gqa": 2239,
    "mmbench_en_dev_static": 1927,
    "mme": 2108,
    "mmmu_val": 1882,
    "nocaps_val": 2292,
    "ok_vqa_val2014": 2249,
    "pope": 2250,
    "scienceqa_img": 1598,
    "seedbench": 2116,
}
"""Visual tokens of an image under LLaVA-1.6's tiles, by task; LLaVA-1.5 has 576 for every image."""

_SHAPES: dict[str, tuple[DecoderShape, bool]] = {
    "llava-1.5-7b": (VICUNA_7B, False),
    "llava-1.5-13b": (VICUNA_13B, False),
    "llava-1.6-7b": (VICUNA_7B, True),
}

MODELS = tuple(_SHAPES)
"""Models whose printed numbers these lengths reproduce. LLaVA-NeXT-Video's are not published."""


@dataclass(frozen=True, slots=True)
class Printed:
    """A line of a table.

    Attributes:
        full: tera-multiply-adds of the unpruned model ("TFLOPs"), mean over the tasks.
        pruned: the same of the pruned model.
        percent: mean over the tasks of 100 pruned / full.
    """

    full: float
    pruned: float
    percent: float


def printed_tflops(
    model: str,
    keep_ratio: float = 0.098,
    tasks: Sequence[str] = tuple(TEXT_TOKENS),
    convention: Convention = "2ndm",
) -> Printed:
    """Return the TFLOPs that a table of these tasks prints for a model and a keep ratio.

    Args:
        model: one of `MODELS`.
        keep_ratio: share of an image's visual tokens that is kept before the language model.
        tasks: keys of `TEXT_TOKENS`; DivPrune's ablations use four of them.
        convention: see `otprune.cost`; the papers' is "2ndm".

    Raises:
        ValueError: an unknown model or task, no task, a ratio outside (0, 1].
    """
    if model not in _SHAPES:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}")
    unknown = [task for task in tasks if task not in TEXT_TOKENS]
    if unknown or not tasks:
        known = ", ".join(TEXT_TOKENS)
        raise ValueError(
            f"tasks must be one or more of {known}, got {', '.join(unknown) or 'none'}"
        )
    shape, anyres = _SHAPES[model]
    full, pruned = [], []
    for task in tasks:
        visual = VISUAL_TOKENS_ANYRES[task] if anyres else 576
        kept = resolve_budget(visual, keep_ratio=keep_ratio)
        text = TEXT_TOKENS[task]
        full.append(prefill_multiply_adds(shape, visual + text, convention))
        pruned.append(prefill_multiply_adds(shape, kept + text, convention))
    count = len(tasks)
    ratios = [few / many for few, many in zip(pruned, full, strict=True)]
    return Printed(sum(full) / count / 1e12, sum(pruned) / count / 1e12, 100 * sum(ratios) / count)
