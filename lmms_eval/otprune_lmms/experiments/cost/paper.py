"""The TFLOPs that OTPrune and DivPrune print, from lengths alone: nothing is measured here.

As the script ``tflops.py`` of the released code computes them: multiply-adds by "2ndm" of one
prefill for each of the 11 benchmarks, with a typical question's text tokens and without the 35
tokens of the system prompt. A table's TFLOPs are the mean over its benchmarks, its percentage is
the mean of the benchmarks' ratios, which is not the ratio of the means.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from otprune import resolve_budget
from otprune.cost import VICUNA_7B, VICUNA_13B, Convention, DecoderShape, prefill_multiply_adds


@dataclass(frozen=True, slots=True)
class Lengths:
    """Typical lengths of a benchmark's prompts, from ``paper.csv``.

    Attributes:
        text: text tokens of a question.
        visual_anyres: visual tokens of an image under LLaVA-1.6's tiles; LLaVA-1.5 has 576 for
            every image.
        ablation: whether the benchmark is one of the four of DivPrune's ablations.
    """

    text: int
    visual_anyres: int
    ablation: bool


@cache
def lengths() -> Mapping[str, Lengths]:
    """Return the lengths of each benchmark of the papers' tables, in their order."""
    path = files("otprune_lmms.experiments.cost") / "paper.csv"
    with path.open(encoding="utf-8") as file:
        return {
            line["benchmark"]: Lengths(
                int(line["text_tokens"]),
                int(line["visual_tokens_anyres"]),
                line["divprune_ablation"] == "1",
            )
            for line in csv.DictReader(file)
        }


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
    tasks: Sequence[str] | None = None,
    convention: Convention = "2ndm",
) -> Printed:
    """Return the TFLOPs that a table of these tasks prints for a model and a keep ratio.

    Args:
        model: one of `MODELS`.
        keep_ratio: share of an image's visual tokens that is kept before the language model.
        tasks: keys of `lengths`, None for all; DivPrune's ablations use four of them.
        convention: see `otprune.cost`; the papers' is "2ndm".

    Raises:
        ValueError: an unknown model or task, no task, a ratio outside (0, 1].
    """
    if model not in _SHAPES:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}")
    known = lengths()
    tasks = tuple(known) if tasks is None else tasks
    unknown = [task for task in tasks if task not in known]
    if unknown or not tasks:
        raise ValueError(
            f"tasks must be one or more of {', '.join(known)}, got {', '.join(unknown) or 'none'}"
        )
    shape, anyres = _SHAPES[model]
    full, pruned = [], []
    for task in tasks:
        text = known[task].text
        visual = known[task].visual_anyres if anyres else 576
        kept = resolve_budget(visual, keep_ratio=keep_ratio)
        full.append(prefill_multiply_adds(shape, visual + text, convention))
        pruned.append(prefill_multiply_adds(shape, kept + text, convention))
    count = len(tasks)
    ratios = [few / many for few, many in zip(pruned, full, strict=True)]
    return Printed(sum(full) / count / 1e12, sum(pruned) / count / 1e12, 100 * sum(ratios) / count)
