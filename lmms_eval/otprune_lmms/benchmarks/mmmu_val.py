"""MMMU: questions of college examinations, most with options."""

from collections.abc import Mapping
from typing import Any

from otprune_lmms.benchmarks.letters import answer_letter
from otprune_lmms.benchmarks.record import Benchmark, PrintedName


def reference(document: Mapping[str, Any]) -> str | None:
    """Return the answer of a document, which is a letter where the question has options."""
    if document.get("question_type") == "multiple-choice":
        return answer_letter(document)
    return document["answer"]


BENCHMARK = Benchmark(
    name="mmmu_val",
    task="mmmu_val",
    metric="mmmu_acc",
    column="MMMU",
    folder="mmmu",
    reference=reference,
    printed=(PrintedName("mmmu_val", "acc"),),
)
