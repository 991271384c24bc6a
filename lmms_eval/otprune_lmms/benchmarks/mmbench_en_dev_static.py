"""MMBench, English, split dev, matched by rule: an answer that is no letter is wrong.

A question may be asked several times with its options turned; it is right if it is right each
time. Such questions are scored as one.
"""

from collections.abc import Mapping
from typing import Any

from otprune_lmms.benchmarks.groups import DocumentGroups
from otprune_lmms.benchmarks.record import Benchmark, PrintedName

_TURNED = 1_000_000
"""The question of index i is asked again with turned options at i plus multiples of this."""


def question(document: Mapping[str, Any]) -> int | None:
    """Return the number of the question that a document asks; None where it has no index."""
    index = str(document.get("index", ""))
    return int(index) % _TURNED if index.isdecimal() else None


BENCHMARK = Benchmark(
    name="mmbench_en_dev_static",
    task="mmbench_en_dev_static",
    metric="gpt_eval_score",
    column="MMB",
    title="MMBench",
    folder="mmbench",
    scale=1.0,
    groups=DocumentGroups(question, common="question"),
    related=("mmbench_*",),
    printed=(PrintedName("mmbench_en_dev", "acc"),),
)
