"""Experiments as YAML files; every value is checked before a model or data is loaded."""

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from otprune.checks import check_device_name
from otprune_lmms.benchmarks import GROUPS, benchmark
from otprune_lmms.environment import read_environment
from otprune_lmms.experiments.controls import controls_for
from otprune_lmms.experiments.pruning_choices import (
    ConfigSection,
    MethodChoice,
    PruningChoices,
    as_tuple,
)
from otprune_lmms.files import is_folder
from otprune_lmms.limits import LARGEST_BATCH, MOST_DOCUMENTS, MOST_WORKERS
from otprune_lmms.models import ModelSource, check_source
from otprune_lmms.suggestions import did_you_mean
from otprune_lmms.yaml_files import YamlError, read_yaml

TASKS = Path(__file__).parent.parent / "tasks"
"""The package's own task files."""

_NAME = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
"""A name of files: file systems take 255 letters, and endings are added."""

_TEXT = Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$")
"""A text of one or a few lines, or a path; without control characters."""

_REVISION = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=200)
"""A branch, tag or commit on the hub."""

_REPOSITORY = Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", max_length=200)

_LIMIT = Field(ge=1, le=MOST_DOCUMENTS)

_RENAMED = {"cells": "pruning", "conversation": "chat_template"}
"""Keys of earlier versions, and their names now."""


class ConfigError(ValueError):
    """An invalid experiment; the message has the file, the key, the rule and the value."""


class ModelChoice(ConfigSection):
    """A model of the experiment.

    Attributes:
        name: its name in tables.
        pretrained: a hub id, or a folder; "./" and "../" are relative to the experiment's file.
        family: a name of `models.FAMILIES`; None for that of the checkpoint's configuration.
        dtype: of the weights; None for float32 on a CPU, float16 on a GPU.
        chat_template: name of the model's chat template; None for its usual one.
        batch_size: requests in one call of the language model; halved where memory runs out.
        model_base: the base model of an adapter or of projector weights.
        attn_implementation: as in transformers; None for its choice.
        device: "cuda", "cuda:1", "cpu"; None for a GPU where there is one.
        revision: branch, tag or commit on the hub; None for the newest.
        min_pixels: smallest area that images are resized to, in families that take images of any
            size; None for that of lmms-eval's own wrapper.
        max_pixels: the largest one.
        backend: "vllm" has vLLM run the model, with its plug-in otprune-vllm; None runs it here.
        python: interpreter of the environment that has vLLM; "./" and "../" are relative to the
            experiment's file. None for the variable ``OTPRUNE_VLLM_PYTHON``, without it for the
            interpreter that runs this.
        vllm: arguments of ``vllm.LLM``, such as ``max_model_len``.
    """

    name: Annotated[str, _NAME]
    pretrained: Annotated[str, _TEXT]
    family: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    chat_template: str | None = None
    batch_size: Annotated[int, Field(ge=1, le=LARGEST_BATCH)] = 1
    model_base: str | None = None
    attn_implementation: str | None = None
    device: str | None = None
    revision: Annotated[str, _REVISION] | None = None
    min_pixels: Annotated[int, Field(ge=1)] | None = None
    max_pixels: Annotated[int, Field(ge=1)] | None = None
    backend: Literal["vllm"] | None = None
    python: Annotated[str, _TEXT] | None = None
    vllm: dict[str, str | int | float | bool] = {}

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.device is not None:
            check_device_name(self.device)
        # A relative folder starts at the experiment's file, which is not known here.
        relative = self.pretrained.startswith(".")
        if self.family is not None or not relative:
            check_source(self._source(self.pretrained))
        return self

    def _source(self, pretrained: str) -> ModelSource:
        return ModelSource(
            pretrained,
            family=self.family,
            model_base=self.model_base,
            chat_template=self.chat_template,
            device=self.device,
            dtype=self.dtype,
            attn_implementation=self.attn_implementation,
            revision=self.revision,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            backend=self.backend,
            python=self.python,
            engine=tuple(sorted(self.vllm.items())),
        )

    def source(self, folder: Path, device: str | None = None) -> ModelSource:
        """Return which model to load, with everything that decides its answers.

        Args:
            folder: of the experiment's file; relative checkpoint folders start there.
            device: device of the model if the experiment gives none.
        """
        source = replace(self._source(checkpoint(self, folder)), device=self.device or device)
        if self.backend is None:
            return source
        python = self.python or read_environment().vllm_python
        if python is not None and python.startswith("."):
            # Not resolved: an environment's interpreter is a link, by whose place it is known.
            python = os.path.normpath(folder.absolute() / python)
        return replace(source, python=python)


class TaskChoice(ConfigSection):
    """A task of the experiment.

    Attributes:
        id: name of a benchmark, or lmms-eval's id of a task without a record; a group
            (`benchmarks.GROUPS`) stands for all of its benchmarks.
        limit: documents from the start; None for the experiment's own limit.
    """

    id: Annotated[str, _TEXT]
    limit: Annotated[int, _LIMIT] | None = None


def _task(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


def _not_empty(value: Any) -> Any:
    if value == {}:
        raise ValueError("must name methods; for the unpruned model alone give methods: []")
    return value


class PublishedRow(ConfigSection):
    """A row of numbers from a paper, shown apart from ours and never mixed with them.

    Attributes:
        source: paper and table.
        row: its name in the paper.
        model: name of one of the experiment's models.
        scores: by task id, in the units of the table's columns.
    """

    source: Annotated[str, _TEXT]
    row: Annotated[str, _TEXT]
    model: str
    scores: Annotated[dict[str, FiniteFloat], Field(min_length=1)]


class Experiment(ConfigSection):
    """One table: models x configs x tasks.

    Attributes:
        name: name of its results folder.
        title: title of the table.
        suite: "mini" for the embedded data, "hub" for the benchmarks' own, or a folder of lmms-eval
            task files (``./my_tasks``) whose entries replace those of lmms-eval's tasks. Their
            ``!function`` entries name Python files of that folder, which are then run.
        models: at least one.
        tasks: names of benchmarks.
        pruning: the pruning configs.
        limit: documents of each task, from the start; None for all.
        java: "required": without Java nothing runs where captions are scored; "optional": caption
            metrics are then marked as missing.
        seed_video: frames shown of a video: the first, as in the released fork, or all.
        workers: threads that read and prepare images.
        strict: whether a document that cannot be used (a broken image) is an error; otherwise such
            documents are left out of every row and reported.
        picture: whether kept patches are drawn on an image.
        published: numbers from papers, shown below the table.
        data_revisions: branch, tag or commit of data sets on the hub, by repository; the newest
            for a repository that is not there.
    """

    name: Annotated[str, _NAME]
    title: Annotated[str, _TEXT]
    suite: Annotated[str, Field(pattern=r"^(mini|hub|\.\.?/[^\x00]*)$", max_length=1000)]
    models: Annotated[tuple[ModelChoice, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    tasks: Annotated[
        tuple[Annotated[TaskChoice, BeforeValidator(_task)], ...],
        BeforeValidator(as_tuple),
        Field(min_length=1),
    ]
    pruning: Annotated[PruningChoices, BeforeValidator(_not_empty)]
    limit: Annotated[int, _LIMIT] | None = None
    java: Literal["required", "optional"] = "required"
    seed_video: Literal["first_frame", "all_frames"] = "first_frame"
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)] = 2
    strict: bool = False
    picture: bool = False
    published: Annotated[tuple[PublishedRow, ...], BeforeValidator(as_tuple)] = ()
    data_revisions: dict[Annotated[str, _REPOSITORY], Annotated[str, _REVISION]] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _distinct("models", [model.name for model in self.models])
        _distinct("tasks", list(self.task_limits()))
        names = {model.name for model in self.models}
        for row in self.published:
            if row.model not in names:
                raise ValueError(f"published: model must be one of the models, got {row.model!r}")
        return self

    def task_limits(self) -> dict[str, int | None]:
        """Return the limit of each task, groups of benchmarks expanded.

        A limit is raised where it would cut documents that are scored as one.
        """
        named = [
            (task, choice.limit or self.limit)
            for choice in self.tasks
            for task in GROUPS.get(choice.id, (choice.id,))
        ]
        _distinct("tasks", [task for task, _ in named])
        return {task: benchmark(task).limit(limit) for task, limit in named}


def _distinct(name: str, values: list[str]) -> None:
    twice = sorted(value for value, number in Counter(values).items() if number > 1)
    if twice:
        raise ValueError(f"{name} must be distinct, got {', '.join(twice)} more than once")


def load_experiment(path: Path) -> Experiment:
    """Return the experiment of a YAML file, its controls among its methods.

    Its checkpoint and task folders must exist.

    Raises:
        ConfigError: no such file, no YAML (`read_yaml`), an unknown key, an impossible value, a
            missing folder; the message names file and key.
    """
    try:
        content = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except YamlError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys and values, got {type(content).__name__}")
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error
    for model in experiment.models:
        folder = checkpoint(model, path.parent)
        if model.pretrained.startswith(".") and not is_folder(Path(folder)):
            raise ConfigError(f"{path}: models: pretrained of {model.name}: no folder {folder}")
    tasks = task_folder(experiment, path.parent)
    if tasks is not None and not is_folder(tasks):
        raise ConfigError(f"{path}: suite: no folder {tasks}")
    controls = controls_for([model.source(path.parent) for model in experiment.models])
    try:
        pruning = experiment.pruning.with_controls(controls)
    except ValidationError as error:
        raise ConfigError(
            f"{path}: pruning: controls: {_explain(error)} (controls: false leaves them out)"
        ) from error
    return experiment.model_copy(update={"pruning": pruning})


def task_folder(experiment: Experiment, folder: Path) -> Path | None:
    """Return the folder of an experiment's task files; None for the benchmarks' own data.

    Args:
        experiment: the experiment.
        folder: of its file; a relative suite starts there.
    """
    if experiment.suite.startswith("."):
        return (folder / experiment.suite).resolve()
    return {"mini": TASKS / "mini", "hub": None}[experiment.suite]


def checkpoint(model: ModelChoice, folder: Path) -> str:
    """Return a model's hub id or folder; a relative one starts at ``folder``."""
    named = model.pretrained
    return str((folder / named).resolve()) if named.startswith(".") else named


_PROBLEMS = 10
"""How many problems of a file are told at once."""


def _explain(error: ValidationError) -> str:
    problems = []
    for one in error.errors():
        key = ".".join(str(part) for part in one["loc"] if "-" not in str(part)) or "experiment"
        message = one["msg"].removeprefix("Value error, ")
        shown = "" if one["type"] in ("missing", "value_error") else f", got {_short(one['input'])}"
        if one["type"] == "extra_forbidden":
            renamed = _RENAMED.get(str(one["loc"][-1]))
            meant = did_you_mean(one["loc"][-1], _known_keys(one["loc"]))
            message = f"this key is called {renamed} now" if renamed else f"unknown key{meant}"
            shown = ""
        problems.append(f"{key}: {message}{shown}")
    shown, more = problems[:_PROBLEMS], len(problems) - _PROBLEMS
    return "; ".join([*shown, f"and {more} more"] if more > 0 else shown)


def _known_keys(place: Sequence[int | str]) -> Collection[str]:
    """Return the keys of the section that a problem's place is in."""
    sections = {"models": ModelChoice, "tasks": TaskChoice, "published": PublishedRow}
    section = sections.get(str(place[0]), Experiment) if len(place) > 1 else Experiment
    if place[0] == "pruning" and len(place) > 1:
        section = MethodChoice if "methods" in place else PruningChoices
    return section.model_fields


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
