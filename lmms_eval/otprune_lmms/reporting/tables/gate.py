"""Whether the unpruned model of a run is where it should be.

A pruned score means little where the unpruned model already misses its published one: another
prompt, another metric, another version. So the table holds the unpruned rows against references
and says of every number under a failed one that it is not to be trusted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from otprune_lmms.reporting.statistics import averages
from otprune_lmms.reporting.tables.references import Anchor
from otprune_lmms.results.records import UNPRUNED, documents_of

Status = Literal["within", "outside", "not measured", "no reference"]

_DIGITS = 9
"""A difference is rounded to this many decimals, or 61.96 - 60.46 would be more than 1.5."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of a model on a task.

    Attributes:
        model: unpruned.
        task: id.
        status: "within" or "outside" the tolerance; "not measured" without an unpruned score;
            "no reference" where nothing is known to hold it against.
        value: the run's, in the unit of the table's column.
        anchor: what it was held against.
    """

    model: str
    task: str
    status: Status
    value: float | None = None
    anchor: Anchor | None = None


Verdicts = Mapping[str, Mapping[str, Verdict]]
"""By model and task."""


def gate(
    records: pd.DataFrame, reference: Mapping[str, Mapping[str, Sequence[Any]]]
) -> dict[str, dict[str, Verdict]]:
    """Return the verdict on each model's unpruned score of each task of some records.

    Args:
        records: as `read_records` returns them.
        reference: by model and task: an `Anchor`, or its first fields, (value, tolerance). One that
            was measured on so many documents is not held against another count.

    Raises:
        ValueError: a tolerance that is negative or no number.
    """
    scores = averages.scores(records)
    return {
        model: {
            task: _verdict(model, task, scores, count, reference.get(model, {}).get(task))
            for task, count in tasks.items()
        }
        for model, tasks in documents_of(records).items()
    }


def doubted(verdicts: Verdicts) -> dict[str, frozenset[str]]:
    """Return by model the tasks whose pruned scores are not to be trusted."""
    return {
        model: frozenset(task for task, one in tasks.items() if one.status == "outside")
        for model, tasks in verdicts.items()
    }


def _verdict(
    model: str, task: str, scores: pd.DataFrame, documents: int, given: Sequence[Any] | None
) -> Verdict:
    found = scores[task].get((model, UNPRUNED))
    value = None if found is None or pd.isna(found) else float(found)
    if given is None:
        return Verdict(model, task, "no reference", value)
    anchor = Anchor(*given)
    if not anchor.tolerance >= 0:
        raise ValueError(
            f"tolerance of {model} on {task} must be a number of at least 0, got {anchor.tolerance}"
        )
    if anchor.documents not in (None, documents):
        return Verdict(model, task, "no reference", value)
    if value is None:
        return Verdict(model, task, "not measured", None, anchor)
    distance = round(abs(value - anchor.value), _DIGITS)
    status: Status = "within" if distance <= anchor.tolerance else "outside"
    return Verdict(model, task, status, value, anchor)
