"""What several experiments ask, put together: each question under each config once.

Experiments of one sweep often share a model, tasks and configs: a ratio study and a layer study
both have the unpruned model and the usual ratio. Put together, a model is loaded once, an image encoded
once and ranked once for all of them, and no answer is made twice.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from otprune_lmms.experiments.config import (
    ConfigError,
    Experiment,
    ModelChoice,
    checkpoint,
    task_folder,
)
from otprune_lmms.experiments.shard import Shard
from otprune_lmms.pruning_config import PruningConfig

Source = tuple[Experiment, Path]
"""An experiment and the folder of its file, where its relative folders start."""


@dataclass(frozen=True)
class Pass:
    """Tasks that a model is asked under the same configs.

    Attributes:
        tasks: with the limit of each; a task may be there with several.
        folder: of the task files; None for the stock tasks' own data.
        seed_video: frames of SEED-Bench's videos.
        configs: the settings.
    """

    tasks: tuple[tuple[str, int | None], ...]
    folder: Path | None
    seed_video: Any
    configs: tuple[PruningConfig, ...]


@dataclass(frozen=True)
class ModelPasses:
    """What one model is asked.

    Attributes:
        model: as the first experiment that has it describes it.
        config: folder that the model's relative folder starts from.
        names: of the experiments that ask it.
        workers: threads that read images.
        strict: whether a document that cannot be asked about is an error, as one of them wants.
        passes: one for each set of configs.
    """

    model: ModelChoice
    config: Path
    names: tuple[str, ...]
    workers: int
    strict: bool
    passes: tuple[Pass, ...]

    def only(self, configs: Collection[PruningConfig]) -> "ModelPasses":
        """Return what is asked under some of the configs."""
        kept = [
            replace(p, configs=tuple(c for c in p.configs if c in configs)) for p in self.passes
        ]
        return replace(self, passes=tuple(one for one in kept if one.configs))

    @property
    def configs(self) -> tuple[PruningConfig, ...]:
        """All configs, each once."""
        return tuple(dict.fromkeys(config for one in self.passes for config in one.configs))


def passes_of(sources: Sequence[Source], shard: Shard | None = None) -> list[ModelPasses]:
    """Return what experiments ask of each model, or a shard's part of it.

    Shards by configs count the pairs of model and config through all experiments, so that no two
    shards have one in common; shards by documents leave everything as it is.

    Raises:
        ConfigError: a name that stands for different models, or for different experiments.
    """
    check_names(sources)
    asked: dict[tuple, _Asked] = {}
    for experiment, folder in sources:
        for model in experiment.models:
            key = identity(model, folder)
            one = asked.setdefault(key, _Asked(model, folder, experiment.workers))
            one.add(experiment, folder)
    found = [one.passes() for one in asked.values()]
    if shard is None:
        return found
    pairs = [(number, config) for number, one in enumerate(found) for config in one.configs]
    own = shard.configs(pairs)
    parts = [
        one.only({config for owner, config in own if owner == number})
        for number, one in enumerate(found)
    ]
    return [part for part in parts if part.passes]


def identity(model: ModelChoice, folder: Path) -> tuple:
    """Return what decides a model's answers; its name and batch size do not."""
    return (
        checkpoint(model, folder),
        model.model_base,
        model.dtype,
        model.conversation,
        model.attn_implementation,
        model.device,
    )


class _Asked:
    """What one model is asked, while experiments come in."""

    def __init__(self, model: ModelChoice, folder: Path, workers: int) -> None:
        self.model, self.folder, self.workers = model, folder, workers
        self.names: list[str] = []
        self.strict = False
        self.configs: dict[tuple[Path | None, Any, str, int | None], dict[PruningConfig, None]] = {}

    def add(self, experiment: Experiment, folder: Path) -> None:
        self.names.append(experiment.name)
        self.strict |= experiment.strict
        self.workers = max(self.workers, experiment.workers)
        files = task_folder(experiment, folder)
        for task, limit in experiment.task_limits().items():
            configs = self.configs.setdefault((files, experiment.seed_video, task, limit), {})
            configs.update(dict.fromkeys(experiment.pruning.configs()))

    def passes(self) -> ModelPasses:
        tasks: dict[tuple, list[tuple[str, int | None]]] = {}
        configs: dict[tuple, tuple[PruningConfig, ...]] = {}
        for (files, video, task, limit), wanted in self.configs.items():
            key = (files, video, frozenset(wanted))
            tasks.setdefault(key, []).append((task, limit))
            configs.setdefault(key, tuple(wanted))
        passes = tuple(
            Pass(tuple(some), files, video, configs[files, video, alike])
            for (files, video, alike), some in tasks.items()
        )
        names = tuple(self.names)
        return ModelPasses(self.model, self.folder, names, self.workers, self.strict, passes)


def check_names(sources: Sequence[Source]) -> None:
    """Raise ``ConfigError`` for a name that stands for different models or experiments."""
    known: dict[str, tuple] = {}
    names = [experiment.name for experiment, _ in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"experiments of one sweep must have names of their own, got {', '.join(twice)} twice"
        )
    for experiment, folder in sources:
        for model in experiment.models:
            key = identity(model, folder)
            if known.setdefault(model.name, key) != key:
                raise ConfigError(
                    f"models of one sweep that share a name must be the same, got {model.name} "
                    f"for {known[model.name][0]} and, in {experiment.name}, for {key[0]}, or under "
                    "other settings (dtype, conversation, model_base, attn_implementation, device)"
                )
