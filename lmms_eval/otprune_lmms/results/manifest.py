"""The run of a results folder: the parts of ``manifest.json`` that tables need.

The file is read as plain JSON and not through `Experiment`, which would load torch.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from otprune_lmms.benchmarks import GROUPS
from otprune_lmms.results.columns import Budget, budget_of

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class PrintedRow:
    """A row of numbers from a paper.

    Attributes:
        source: paper and table.
        row: its name in the paper; "unpruned" or "Original" is the unpruned model.
        model: the experiment's name of the model.
        scores: by task id, in the units of the table's columns.
    """

    source: str
    row: str
    model: str
    scores: Mapping[str, float]

    @property
    def unpruned(self) -> bool:
        """Whether the row is the unpruned model."""
        return self.row.lower() in ("unpruned", "original")


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row of the experiment's plan, the same for every model; see `results.columns`.

    Attributes:
        row: as in the records.
        name: the row without its budget.
        method: None for the unpruned model.
        budget: how much it may keep.
        layer: where it prunes.
        match: what its budget counts.
    """

    row: str
    name: str
    method: str | None = None
    budget: Budget = Budget()
    layer: int = 0
    match: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Facts about a run that tables need.

    Attributes:
        title: title of the table.
        origin: hardware, commit, versions and command.
        models: models of the experiment, in its order.
        tasks: tasks of the experiment, in its order.
        limited: tasks of which only the first documents were used.
        published: numbers from papers.
        planned: rows of the experiment's plan; may be empty.
        text_tokens: mean text tokens of a prompt, by model and task; may be empty.
        left_out: number of documents that were left out, by task.
    """

    title: str
    origin: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    limited: frozenset[str] = frozenset()
    published: tuple[PrintedRow, ...] = ()
    planned: tuple[PlannedRow, ...] = ()
    text_tokens: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a results folder.

    ``configs`` (the experiment's settings by the columns of `results.columns`), ``text_tokens`` (a
    mean by model and task) and ``failed`` (documents that were left out) are optional.

    Raises:
        ValueError: the folder has no manifest, or none of this format.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _parsed(content, content["experiment"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no manifest of a run: {error!r}") from error


def _parsed(content: Mapping[str, Any], experiment: Mapping[str, Any]) -> Manifest:
    limits = dict(_limits(experiment))
    planned = {one["row"]: _planned(one) for one in content.get("configs", ())}
    return Manifest(
        title=str(experiment["title"]),
        origin={str(name): str(value) for name, value in content["origin"].items()},
        models=tuple(model["name"] for model in experiment["models"]),
        tasks=tuple(limits),
        limited=frozenset(task for task, limit in limits.items() if limit is not None),
        published=tuple(
            PrintedRow(one["source"], one["row"], one["model"], dict(one["scores"]))
            for one in experiment.get("published", ())
        ),
        planned=tuple(planned.values()),
        text_tokens=content.get("text_tokens", {}),
        left_out=Counter(one["task"] for one in content.get("failed", ())),
    )


def _planned(config: Mapping[str, Any]) -> PlannedRow:
    return PlannedRow(
        config["row"],
        config["name"],
        config["method"],
        budget_of(config["keep_ratio"], config["k"], config["match"]),
        config["layer"],
        config["match"],
    )


def _limits(experiment: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    """Return each task's limit, groups of benchmarks expanded."""
    whole = experiment.get("limit")
    return [
        (task, choice.get("limit") or whole)
        for choice in experiment["tasks"]
        for task in GROUPS.get(choice["id"], (choice["id"],))
    ]
