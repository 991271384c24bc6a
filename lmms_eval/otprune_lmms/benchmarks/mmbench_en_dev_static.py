"""MMBench, English, split dev, matched by rule: an answer that is no letter is wrong.

A question may occur several times with its options rotated; it is right if all of its documents
are. These are scored as one.
"""

from collections.abc import Mapping
from typing import Any

from otprune_lmms.benchmarks.groups import DocumentGroups
from otprune_lmms.benchmarks.letters import answer_letter
from otprune_lmms.benchmarks.record import Benchmark, PrintedName

_ROTATED = 1_000_000
"""Rotated copies of the question with index i have index i plus multiples of this."""


def question(document: Mapping[str, Any]) -> int | None:
    """Return the number of a document's question; None where it has no index."""
    index = str(document.get("index", ""))
    return int(index) % _ROTATED if index.isdecimal() else None


BENCHMARK = Benchmark(
    name="mmbench_en_dev_static",
    task="mmbench_en_dev_static",
    metric="gpt_eval_score",
    column="MMB",
    title="MMBench",
    folder="mmbench",
    scale=1.0,
    reference=answer_letter,
    groups=DocumentGroups(question, common="question"),
    related=("mmbench_*",),
    printed=(PrintedName("mmbench_en_dev", "acc"),),
)
