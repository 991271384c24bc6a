"""MMBench, English, split dev, matched by rule: an answer that is no letter is wrong.

A question may occur several times with its options rotated; it is right if all of its documents
are. These are scored as one.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from otprune_lmms.benchmarks.groups import DocumentGroups
from otprune_lmms.benchmarks.letters import answer_letter
from otprune_lmms.benchmarks.options import Options, lettered
from otprune_lmms.benchmarks.record import Benchmark, PrintedName
from otprune_lmms.benchmarks.shares import Noted, TaskAggregation

_ROTATED = 1_000_000
"""Rotated copies of the question with index i have index i plus multiples of this."""


def question(document: Mapping[str, Any]) -> int | None:
    """Return the number of a document's question; None where it has no index."""
    index = str(document.get("index", ""))
    return int(index) % _ROTATED if index.isdecimal() else None


def options(document: Mapping[str, Any]) -> Options | None:
    """Return the letters of a document's options; a column without one is empty or "nan"."""
    letters = [one for one in "ABCDE" if str(document.get(one) or "nan") != "nan"]
    return lettered(letters, answer_letter(document))


@contextmanager
def hits(aggregation: TaskAggregation) -> Iterator[Noted]:
    """Note which questions are right while lmms-eval's evaluator goes through them.

    It makes a data frame of all documents for each call, which for one question at a time took most
    of a setting's scoring. Nothing is noted where the task has another evaluator.

    Args:
        aggregation: the task's.

    Yields:
        By the question's number 100 or 0, the unit of the metric.
    """
    found: dict[Any, float] = {}
    plain = aggregation.func if isinstance(aggregation, partial) else aggregation
    evaluator = getattr(plain, "__globals__", {}).get("mmbench_evaluator")
    stock = getattr(evaluator, "eval_sub_data", None)
    if evaluator is None or stock is None or "eval_sub_data" in vars(evaluator):
        yield found
        return

    def evaluated(documents: Any, *args: Any, **kwargs: Any) -> Any:
        hit = stock(documents, *args, **kwargs)
        found[int(documents["index"].iloc[0]) % _ROTATED] = 100.0 * hit
        return hit

    evaluator.eval_sub_data = evaluated
    try:
        yield found
    finally:
        del evaluator.eval_sub_data


BENCHMARK = Benchmark(
    name="mmbench_en_dev_static",
    task="mmbench_en_dev_static",
    metric="gpt_eval_score",
    column="MMB",
    title="MMBench",
    folder="mmbench",
    scale=1.0,
    reference=answer_letter,
    options=options,
    groups=DocumentGroups(question, common="question"),
    notes=hits,
    related=("mmbench_*",),
    printed=(PrintedName("mmbench_en_dev", "acc"),),
)
