"""From answers and scores to tidy records."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from otprune_lmms.cells import Cell
from otprune_lmms.engine import Answer
from otprune_lmms.experiments.config import Experiment, ModelChoice
from otprune_lmms.scoring import TaskScore


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer belongs: fields of its request."""

    task: str
    doc_id: int
    index: int
    repeat: int


Answered = tuple[Place, Answer]

Values = dict[int, tuple[Any, ...]]
"""Answers of one cell to one task, by document, in the order of its requests."""


def values_of(answers: Sequence[Answered]) -> Values:
    """Return the answers by document, in the order of each document's requests."""
    found: dict[int, dict[tuple[int, int], Any]] = defaultdict(dict)
    for place, answer in answers:
        found[place.doc_id][place.index, place.repeat] = answer.value
    return {
        doc_id: tuple(value for _, value in sorted(many.items())) for doc_id, many in found.items()
    }


def records_of(
    experiment: Experiment,
    model: ModelChoice,
    cell: Cell,
    score: TaskScore,
    answers: Sequence[Answered],
) -> list[dict[str, Any]]:
    """Return one record for each metric of a cell on a task; see `tables.COLUMNS`."""
    seed = dict(cell.settings).get("seed", 0) if cell.method == "random" else None
    common = {
        "experiment": experiment.name,
        "suite": experiment.suite,
        "model": model.name,
        "cell": cell.label,
        "method": cell.method,
        "keep_ratio": cell.keep_ratio,
        "k": cell.k,
        "layer": cell.layer,
        "seed": seed,
        "row": row_label(cell),
        "task": score.task,
        "documents": score.documents,
        "kept_tokens": _mean([n for _, answer in answers for n in answer.kept]),
        "visual_tokens": _mean([n for _, answer in answers for n in answer.candidates]),
    }
    found = [(m, value, None) for m, value in score.metrics.items()]
    found += [(m, None, reason) for m, reason in score.missing.items()]
    return [common | {"metric": m, "value": v, "missing": reason} for m, v, reason in found]


def row_label(cell: Cell) -> str:
    """Return the label of a cell without its seed: seeds of one setting share a row."""
    if cell.method != "random":
        return cell.label
    plain = {name: value for name, value in cell.settings_dict().items() if name != "seed"}
    return Cell.make(**plain).label


def _mean(numbers: Sequence[int]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
