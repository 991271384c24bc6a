"""ScienceQA: questions with options from school science; the split of those with an image."""

from collections.abc import Mapping
from typing import Any

from otprune_lmms.benchmarks.options import Options, first_letters, lettered
from otprune_lmms.benchmarks.record import Benchmark, PrintedName


def reference(document: Mapping[str, Any]) -> str | None:
    """Return the option that a document's answer numbers; None where there is none."""
    answer, options = document["answer"], document["choices"]
    return options[answer] if isinstance(answer, int) and 0 <= answer < len(options) else None


def options(document: Mapping[str, Any]) -> Options | None:
    """Return the letters of a document's options; ``answer`` is the number of the right one."""
    letters, answer = first_letters(len(document["choices"])), document["answer"]
    return lettered(letters, letters[answer : answer + 1])


BENCHMARK = Benchmark(
    name="scienceqa_img",
    task="scienceqa_img",
    metric="exact_match",
    column="SQA-I",
    title="ScienceQA-IMG",
    folder="scienceqa",
    reference=reference,
    options=options,
    printed=(PrintedName("scienceqa_img", "acc"),),
)
