"""The plan of a sweep: the requests of several experiments to each model, each once.

Experiments of one sweep often share a model, tasks and configs: a ratio study and a layer study
both have the unpruned model and the usual ratio. In one plan a model is loaded once, an image is
encoded and ranked once for all of them, and no answer is made twice.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from otprune_lmms.documents import SeedVideo
from otprune_lmms.experiments.config import ConfigError, Experiment, ModelChoice, task_folder
from otprune_lmms.experiments.shard import Shard
from otprune_lmms.models.protocol import ModelSource
from otprune_lmms.pruning_config import PruningConfig


class Source(NamedTuple):
    """An experiment, and the folder of its file, where its relative folders start."""

    experiment: Experiment
    folder: Path


TaskKey = tuple[Path | None, str]
"""Folder of a task's files (None for the benchmarks' own data), and its name."""


class TaskSize(NamedTuple):
    """How much data a task has, and where it came from.

    Attributes:
        documents: number of its documents.
        commits: commit of each repository on the hub, see `scoring.load_tasks`.
    """

    documents: int
    commits: dict[str, str]


class TaskData(NamedTuple):
    """A task with the source of its documents.

    Attributes:
        folder: folder of the task files; None for the benchmarks' own data.
        seed_video: how videos are shown.
        task: the benchmark's name, or the task's id.
    """

    folder: Path | None
    seed_video: SeedVideo
    task: str


@dataclass(frozen=True)
class TaskGroup:
    """Tasks that a model answers under the same pruning configs.

    Attributes:
        tasks: names and limits; a task may occur with several limits.
        folder: folder of the task files; None for the benchmarks' own data.
        seed_video: how videos are shown.
        configs: the pruning configs.
    """

    tasks: tuple[tuple[str, int | None], ...]
    folder: Path | None
    seed_video: SeedVideo
    configs: tuple[PruningConfig, ...]

    @property
    def data(self) -> tuple[Path | None, SeedVideo]:
        """Folder of the task files, and how videos are shown."""
        return self.folder, self.seed_video


@dataclass(frozen=True)
class ModelPlan:
    """Tasks and pruning configs of one model.

    Attributes:
        model: the model's entry in the first experiment that has it.
        source: which model to load.
        names: names of the experiments that have it.
        workers: threads that read images.
        strict: whether a document that cannot be used is an error: if any experiment is strict.
        groups: one for each set of configs.
    """

    model: ModelChoice
    source: ModelSource
    names: tuple[str, ...]
    workers: int
    strict: bool
    groups: tuple[TaskGroup, ...]

    def only(self, configs: Collection[PruningConfig]) -> "ModelPlan":
        """Return the plan of some of the configs."""
        kept = [
            replace(one, configs=tuple(c for c in one.configs if c in configs))
            for one in self.groups
        ]
        return replace(self, groups=tuple(one for one in kept if one.configs))

    @property
    def configs(self) -> tuple[PruningConfig, ...]:
        """All configs, each once."""
        return tuple(dict.fromkeys(config for one in self.groups for config in one.configs))


def plan_of(sources: Sequence[Source], shard: Shard | None = None) -> list[ModelPlan]:
    """Return the plan of each model, or a shard's part of it.

    Shards by configs split the pairs of model and config of all experiments, so that no two shards
    share a pair. Shards by documents have the whole plan; they split the documents
    (`Shard.place`).

    Raises:
        ConfigError: two models or two experiments have the same name.
    """
    check_names(sources)
    collected: dict[ModelSource, _Collected] = {}
    for experiment, folder in sources:
        for model in experiment.models:
            key = model.source(folder)
            one = collected.setdefault(key, _Collected(model, key, experiment.workers))
            one.add(experiment, folder)
    found = [one.plan() for one in collected.values()]
    if shard is None:
        return found
    pairs = [(number, config) for number, one in enumerate(found) for config in one.configs]
    own = shard.configs(pairs)
    parts = [
        one.only({config for owner, config in own if owner == number})
        for number, one in enumerate(found)
    ]
    return [part for part in parts if part.groups]


def data_revisions(sources: Sequence[Source]) -> dict[str, str]:
    """Return the revision of each data set on the hub that experiments name, by repository.

    Raises:
        ConfigError: two experiments name different ones.
    """
    found: dict[str, str] = {}
    for experiment, _ in sources:
        for repository, revision in experiment.data_revisions.items():
            if found.setdefault(repository, revision) != revision:
                raise ConfigError(
                    "data_revisions of experiments of one sweep must agree, got "
                    f"{found[repository]} and, in {experiment.name}, {revision} for {repository}"
                )
    return found


class _Collected:
    """The tasks and pruning configs of one model, collected experiment by experiment."""

    def __init__(self, model: ModelChoice, source: ModelSource, workers: int) -> None:
        self.model, self.source, self.workers = model, source, workers
        self.names: list[str] = []
        self.strict = False
        self.configs: dict[tuple[TaskData, int | None], dict[PruningConfig, None]] = {}

    def add(self, experiment: Experiment, folder: Path) -> None:
        self.names.append(experiment.name)
        self.strict |= experiment.strict
        self.workers = max(self.workers, experiment.workers)
        files = task_folder(experiment, folder)
        for task, limit in experiment.task_limits().items():
            data = TaskData(files, experiment.seed_video, task)
            configs = self.configs.setdefault((data, limit), {})
            configs.update(dict.fromkeys(experiment.pruning.configs()))

    def plan(self) -> ModelPlan:
        tasks: dict[tuple, list[tuple[str, int | None]]] = {}
        configs: dict[tuple, tuple[PruningConfig, ...]] = {}
        for (data, limit), wanted in self.configs.items():
            key = (data.folder, data.seed_video, frozenset(wanted))
            tasks.setdefault(key, []).append((data.task, limit))
            configs.setdefault(key, tuple(wanted))
        groups = tuple(
            TaskGroup(tuple(some), folder, video, configs[folder, video, alike])
            for (folder, video, alike), some in tasks.items()
        )
        names = tuple(self.names)
        return ModelPlan(self.model, self.source, names, self.workers, self.strict, groups)


def check_names(sources: Sequence[Source]) -> None:
    """Raise ``ConfigError`` if two models or two experiments have the same name.

    Also where their `data_revisions` differ.
    """
    data_revisions(sources)
    known: dict[str, ModelSource] = {}
    names = [experiment.name for experiment, _ in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"experiments of one sweep must have names of their own, got {', '.join(twice)} twice"
        )
    for experiment, folder in sources:
        for model in experiment.models:
            source = model.source(folder)
            if known.setdefault(model.name, source) != source:
                raise ConfigError(
                    f"models of one sweep that share a name must be the same, got {model.name} for "
                    f"{known[model.name].pretrained} and, in {experiment.name}, for "
                    f"{source.pretrained}, or under other settings (family, dtype, chat_template, "
                    "model_base, attn_implementation, device, revision)"
                )
