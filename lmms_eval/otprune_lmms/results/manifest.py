"""What a results folder says of its run: ``manifest.json``, as far as tables need it.

Read as plain JSON and not through `Experiment`, which loads torch: tables are made anywhere.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from otprune_lmms.benchmarks import GROUPS

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Printed:
    """A row of numbers from a paper.

    Attributes:
        source: paper and table.
        row: what the paper calls it; "unpruned" or "Original" is the model that prunes nothing.
        model: which of the experiment's models it is about.
        scores: by task id, in the units of the table's columns.
    """

    source: str
    row: str
    model: str
    scores: Mapping[str, float]

    @property
    def unpruned(self) -> bool:
        """Whether the row is the model that prunes nothing."""
        return self.row.lower() in ("unpruned", "original")


@dataclass(frozen=True, slots=True)
class Planned:
    """A row that the experiment asks for, the same for every model.

    Attributes:
        row: as in the records.
        method: None for unpruned.
        keep_ratio: share kept; or
        k: how many.
        layer: where it prunes.
        match: what its budget is about; None for none, and in folders from before there was a
            choice.
        settings: of its cell, as `Cell.make` takes them.
    """

    row: str
    method: str | None = None
    keep_ratio: float | None = None
    k: int | None = None
    layer: int = 0
    match: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A run, as its tables see it.

    Attributes:
        title: of the table.
        origin: hardware, commit, versions and command.
        models: that the experiment asks for, in its order.
        tasks: that the experiment asks for, in its order.
        limited: tasks of which only the first documents were asked.
        printed: numbers from papers.
        planned: rows that the experiment asks for; empty where the folder does not say.
        shapes: the decoder of each model, fields of `otprune.cost.DecoderShape`; may be empty.
        text_tokens: mean text tokens of a prompt, by model and task; may be empty.
        left_out: by task how many documents could not be asked, under any setting.
    """

    title: str
    origin: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    limited: frozenset[str] = frozenset()
    printed: tuple[Printed, ...] = ()
    planned: tuple[Planned, ...] = ()
    shapes: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)
    text_tokens: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a results folder.

    ``shapes``, ``text_tokens``, ``cells`` and ``failed`` are read where the run wrote them: a map
    of model to decoder sizes, a map of model and task to a mean, the experiment's cells, each with
    the fields of `Planned`, and the documents that could not be asked.

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
    planned = {
        one["row"]: Planned(
            one["row"],
            *(one.get(name) for name in ("method", "keep_ratio", "k")),
            layer=one.get("layer", 0),
            match=one.get("match"),
            settings=one.get("settings", {}),
        )
        for one in content.get("cells", ())
    }
    return Manifest(
        title=str(experiment["title"]),
        origin={str(name): str(value) for name, value in content["origin"].items()},
        models=tuple(model["name"] for model in experiment["models"]),
        tasks=tuple(limits),
        limited=frozenset(task for task, limit in limits.items() if limit is not None),
        printed=tuple(
            Printed(one["source"], one["row"], one["model"], dict(one["scores"]))
            for one in experiment.get("published", ())
        ),
        planned=tuple(planned.values()),
        shapes=content.get("shapes", {}),
        text_tokens=content.get("text_tokens", {}),
        left_out=Counter(one["task"] for one in content.get("failed", ())),
    )


def _limits(experiment: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    """Return each task's limit, groups spelt out."""
    whole = experiment.get("limit")
    return [
        (task, choice.get("limit") or whole)
        for choice in experiment["tasks"]
        for task in GROUPS.get(choice["id"], (choice["id"],))
    ]
