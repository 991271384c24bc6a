"""The run of a results folder: ``manifest.json``, and the parts of it that tables need.

The file is not read through `Experiment`, which would load torch.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # typing has one that pydantic can use from Python 3.12 on

from otprune_lmms.benchmarks import GROUPS
from otprune_lmms.json_files import JsonError, first_fault, read_json
from otprune_lmms.results.columns import Budget, budget_of

MANIFEST = "manifest.json"

_OPEN = ConfigDict(strict=True, allow_inf_nan=False, extra="allow")

_Count = Annotated[int, Field(ge=0, le=2**53)]
_Size = Annotated[int, Field(ge=1, le=2**53)]


def _object(text: str) -> str:
    if not isinstance(json.loads(text), dict):
        raise ValueError("must be a JSON object")
    return text


@with_config(_OPEN)
class _Model(TypedDict):
    name: str


@with_config(_OPEN)
class _Task(TypedDict):
    id: str
    limit: NotRequired[_Count | None]


@with_config(_OPEN)
class _Shape(TypedDict):
    """A decoder's, see `otprune.cost.DecoderShape`."""

    hidden: _Size
    layers: _Size
    heads: _Size
    kv_heads: NotRequired[_Size | None]
    head_dim: NotRequired[_Size | None]


@with_config(_OPEN)
class _Published(TypedDict):
    source: str
    row: str
    model: str
    scores: dict[str, float]


@with_config(_OPEN)
class _Experiment(TypedDict):
    title: str
    models: list[_Model]
    tasks: list[_Task]
    suite: NotRequired[str]
    limit: NotRequired[_Count | None]
    published: NotRequired[list[_Published]]


@with_config(_OPEN)
class _Config(TypedDict):
    row: str
    name: str
    method: str | None
    keep_ratio: float | None
    k: _Count | None
    layer: _Count
    match: str | None
    setting: NotRequired[str]
    fingerprint: NotRequired[str]
    answer_key: NotRequired[str]
    label: NotRequired[str]
    by_tile: NotRequired[bool]
    changed_settings: NotRequired[Annotated[str, AfterValidator(_object)]]
    seed: NotRequired[_Count | None]


@with_config(_OPEN)
class _Failed(TypedDict):
    task: str
    doc_id: NotRequired[_Count]
    reason: NotRequired[str]


@with_config(_OPEN)
class _Run(TypedDict):
    commit: NotRequired[str]


@with_config(_OPEN)
class _Content(TypedDict):
    """What readers count on; further keys are left as they are."""

    origin: dict[str, Any]
    experiment: _Experiment
    versions: NotRequired[dict[str, Any]]
    models: NotRequired[dict[str, str]]
    configs: NotRequired[list[_Config]]
    text_tokens: NotRequired[dict[str, dict[str, float]]]
    shapes: NotRequired[dict[str, _Shape]]
    data: NotRequired[dict[str, dict[str, Any]]]
    failed: NotRequired[list[_Failed]]
    runs: NotRequired[list[_Run]]


_CONTENT = TypeAdapter(_Content)


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
        configs: columns of the experiment's settings, with ``label`` where it gives one.
        cache_numbers: numbers that a token has in the key-value cache over all layers, by model;
            may be empty.
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
    configs: tuple[Mapping[str, Any], ...] = ()
    cache_numbers: Mapping[str, int] = field(default_factory=dict)


def read_content(folder: Path, *needed: str) -> dict[str, Any]:
    """Return the manifest of a results folder as it was written.

    Args:
        folder: of the results.
        needed: keys that it must have, beside origin and experiment.

    Raises:
        ValueError: the folder has no manifest, or none of this format.
    """
    path = folder / MANIFEST
    try:
        content = read_json(path)
        _CONTENT.validate_python(content)
    except JsonError as error:
        raise ValueError(f"{path} is no manifest of a run: {error}") from error
    except ValidationError as error:
        raise ValueError(f"{path} is no manifest of a run: {first_fault(error)}") from None
    except RecursionError:
        raise ValueError(f"{path} is no manifest of a run: nested too deeply") from None
    lacking = sorted(set(needed) - content.keys())
    if lacking:
        raise ValueError(f"{path} must say {', '.join(lacking)}")
    return content


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a results folder.

    ``configs`` (the experiment's settings by the columns of `results.columns`), ``text_tokens`` (a
    mean by model and task) and ``failed`` (documents that were left out) are optional.

    Raises:
        ValueError: the folder has no manifest, or none of this format.
    """
    content = read_content(folder)
    return _parsed(content, content["experiment"])


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
        configs=tuple(content.get("configs", ())),
        cache_numbers={
            model: _cache_numbers(shape) for model, shape in content.get("shapes", {}).items()
        },
    )


def _cache_numbers(shape: Mapping[str, Any]) -> int:
    """Return how many numbers of keys and values a token has in all layers."""
    head_dim = shape.get("head_dim") or shape["hidden"] // shape["heads"]
    return 2 * shape["layers"] * (shape.get("kv_heads") or shape["heads"]) * head_dim


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
