"""MMMU: questions of college examinations, most with options."""

import ast
from collections.abc import Mapping
from typing import Any

from otprune_lmms.benchmarks.letters import answer_letter
from otprune_lmms.benchmarks.options import Options, first_letters, lettered
from otprune_lmms.benchmarks.record import Benchmark, PrintedName


def reference(document: Mapping[str, Any]) -> str | None:
    """Return the answer of a document, which is a letter where the question has options."""
    if document.get("question_type") == "multiple-choice":
        return answer_letter(document)
    return document["answer"]


def options(document: Mapping[str, Any]) -> Options | None:
    """Return the letters of a document's options, which are a list written as in Python."""
    if document.get("question_type") != "multiple-choice":
        return None
    number = len(ast.literal_eval(document["options"]))
    return lettered(first_letters(number), answer_letter(document))


BENCHMARK = Benchmark(
    name="mmmu_val",
    task="mmmu_val",
    metric="mmmu_acc",
    column="MMMU",
    folder="mmmu",
    reference=reference,
    options=options,
    printed=(PrintedName("mmmu_val", "acc"),),
)
