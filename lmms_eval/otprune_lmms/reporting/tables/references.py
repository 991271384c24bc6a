"""Compares the unpruned model's scores with reference scores.

A pruned score means little where the unpruned model already misses its published one: another
prompt, another metric, another version. So a table compares the unpruned rows with references, and
marks every number that is measured against a row that fails.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting import published
from otprune_lmms.reporting.statistics.averages import headline_scores
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import Manifest
from otprune_lmms.results.records import UNPRUNED, documents_of
from otprune_lmms.yaml_files import read_yaml

REFERENCES = Path(__file__).parent / "references.yaml"

CheckStatus = Literal["within", "outside", "not measured", "no reference"]

_DIGITS = 9
"""A difference is rounded to this many decimals, or 61.96 - 60.46 would be more than 1.5."""


class Reference(NamedTuple):
    """The expected score of an unpruned model on a task.

    Attributes:
        value: in the unit of the table's column.
        tolerance: largest accepted distance, inclusive.
        source: origin of the value.
        documents: number of documents that it was measured on; None for the whole benchmark.
    """

    value: float
    tolerance: float
    source: str = ""
    documents: int | None = None


References = Mapping[str, Mapping[str, Reference]]
"""By model and task."""


@dataclass(frozen=True, slots=True)
class ReferenceCheck:
    """An unpruned score beside its reference.

    Attributes:
        model: whose score.
        task: id.
        status: "within" or "outside" the tolerance; "not measured" without an unpruned score;
            "no reference" where none is known.
        value: the run's score, in the unit of the table's column.
        reference: what it was compared with.
    """

    model: str
    task: str
    status: CheckStatus
    value: float | None = None
    reference: Reference | None = None


ReferenceChecks = Mapping[str, Mapping[str, ReferenceCheck]]
"""By model and task."""


def references_of(manifest: Manifest, path: Path = REFERENCES) -> dict[str, dict[str, Reference]]:
    """Return the references of a run's unpruned models.

    The unpruned rows that the experiment itself prints come first, then the package's own file. A
    task of which the run used only the first documents has no published reference.

    Raises:
        ValueError: a file of another format.
    """
    known = _file(path)
    found: dict[str, dict[str, Reference]] = {}
    for model in dict.fromkeys([*manifest.models, *known.references]):
        own = dict(known.references.get(model, {}))
        # Of several sources the first one counts.
        for row in reversed(manifest.published):
            if row.unpruned and row.model == model:
                own |= {
                    task: Reference(value, known.tolerance(task), row.source)
                    for task, value in row.scores.items()
                }
        found[model] = {
            task: reference
            for task, reference in own.items()
            if reference.documents is not None or task not in manifest.limited
        }
    return found


def check_references(
    records: Frame, references: Mapping[str, Mapping[str, Sequence[Any]]]
) -> dict[str, dict[str, ReferenceCheck]]:
    """Return the check of each model's unpruned score of each task of some records.

    Args:
        records: as `read_records` returns them.
        references: by model and task: a `Reference`, or its first fields, (value, tolerance). One
            that was measured on so many documents is not compared with another count.

    Raises:
        ValueError: a tolerance that is negative or no number.
    """
    table = headline_scores(records)
    return {
        model: {
            task: _check(model, task, table, count, references.get(model, {}).get(task))
            for task, count in tasks.items()
        }
        for model, tasks in documents_of(records).items()
    }


def doubted_tasks(checks: ReferenceChecks) -> dict[str, frozenset[str]]:
    """Return by model the tasks whose unpruned score fails its check."""
    return {
        model: frozenset(task for task, one in tasks.items() if one.status == "outside")
        for model, tasks in checks.items()
    }


def _check(
    model: str, task: str, table: Frame, documents: int, given: Sequence[Any] | None
) -> ReferenceCheck:
    found = table[task].get((model, UNPRUNED))
    value = None if found is None or pd.isna(found) else float(found)
    if given is None:
        return ReferenceCheck(model, task, "no reference", value)
    reference = Reference(*given)
    if not reference.tolerance >= 0:
        raise ValueError(
            f"tolerance of {model} on {task} must be a number of at least 0, "
            f"got {reference.tolerance}"
        )
    if reference.documents not in (None, documents):
        return ReferenceCheck(model, task, "no reference", value)
    if value is None:
        return ReferenceCheck(model, task, "not measured", None, reference)
    distance = round(abs(value - reference.value), _DIGITS)
    status: CheckStatus = "within" if distance <= reference.tolerance else "outside"
    return ReferenceCheck(model, task, status, value, reference)


@dataclass(frozen=True)
class _ReferenceFile:
    """Content of a file of references: by model, tolerances by task, and the usual tolerance.

    Tolerances that it does not give are the benchmarks' own.
    """

    references: References
    tolerances: Mapping[str, float]
    usual: float | None

    def tolerance(self, task: str) -> float:
        usual = benchmark(task).tolerance if self.usual is None else self.usual
        return self.tolerances.get(task, usual)


@cache
def _file(path: Path) -> _ReferenceFile:
    """Return the content of a file of references; the head of ``references.yaml`` explains it."""
    try:
        content = read_yaml(path)
        tolerances = {task: float(x) for task, x in content.get("tolerances", {}).items()}
        known = _ReferenceFile({}, tolerances, content.get("tolerance"))
        models = {model: _of_model(one, known) for model, one in content["models"].items()}
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} holds no references: {error!r}") from error
    return _ReferenceFile(models, known.tolerances, known.usual)


def _of_model(one: Mapping[str, Any], known: _ReferenceFile) -> dict[str, Reference]:
    if "published" in one:
        lines = published.load(**one["published"])
        lines = lines[(lines["method"] == "Original") & (lines["task"] != "")]
        return {
            task: Reference(float(value), known.tolerance(task), source)
            for task, value, source in zip(
                lines["task"], lines["value"], lines["source"], strict=True
            )
        }
    own, documents = one.get("tolerances", {}), one.get("documents", {})
    return {
        task: Reference(
            float(value),
            float(own.get(task, known.tolerance(task))),
            str(one["source"]),
            documents.get(task),
        )
        for task, value in one["scores"].items()
    }
