"""Makes outlines of experiments and of a journal's settings; loads torch, data needs lmms-eval."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.cluster.outline import (
    ExperimentOutline,
    ModelOutline,
    SettingOutline,
    TaskOutline,
)
from otprune_lmms.cluster.remembered import EXPERIMENTS, keep
from otprune_lmms.embedded import checkpoint_folder
from otprune_lmms.experiments.config import checkpoint, task_folder
from otprune_lmms.experiments.plan import Source, TaskKey, TaskSize, check_names
from otprune_lmms.models import ModelSource
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.names import Names

_MOST_FILES = 5000
"""Files of a folder of tasks; the data of a larger one is counted each time."""


def outlines_of(
    sources: Sequence[Source], sizes: Mapping[TaskKey, TaskSize]
) -> tuple[ExperimentOutline, ...]:
    """Return the outlines of experiments.

    Args:
        sources: the experiments.
        sizes: of each of their tasks, see `count_documents`.

    Raises:
        ConfigError: two models or two experiments have the same name.
    """
    names = _names(sources)
    found = []
    for experiment, folder in sources:
        files = task_folder(experiment, folder)
        tasks = []
        for task, limit in experiment.task_limits().items():
            documents = sizes[files, task].documents
            shown = None if files is None else str(files)
            tasks.append(TaskOutline(shown, task, min(documents, limit or documents)))
        called = experiment.pruning.names
        settings = [
            SettingOutline(one.label, called.setting(one.label), one.answer_key)
            for one in experiment.pruning.configs()
        ]
        models = [ModelOutline(one.name, names[one.name]) for one in experiment.models]
        found.append(
            ExperimentOutline(experiment.name, tuple(models), tuple(tasks), tuple(settings))
        )
    return tuple(found)


def remember(
    sources: Sequence[Source],
    sizes: Mapping[TaskKey, TaskSize],
    journal: Path,
    key: str | None,
    again: Callable[[], str | None],
) -> None:
    """Keep the outlines of experiments for `otprune status`, where nothing speaks against it.

    Args:
        sources: the experiments.
        sizes: of their tasks; with some of them missing nothing is kept.
        journal: folder that the outlines are kept in.
        key: of the experiments, from before they were read.
        again: returns the key now; another one says that a file was changed meanwhile.
    """
    wanted = {
        (task_folder(one, folder), task) for one, folder in sources for task in one.task_limits()
    }
    if wanted <= sizes.keys() and key == again():
        files = files_behind(sources, sizes)
        if files is not None:
            keep(journal, key, EXPERIMENTS, outlines_of(sources, sizes), files)


def settings_of(configs: Iterable[Mapping[str, Any]]) -> tuple[SettingOutline, ...]:
    """Return the outlines of pruning configs, each once.

    Args:
        configs: each as `PruningConfig.as_dict`, as a journal has them.

    Raises:
        ValueError: a method or a setting that there is no more.
    """
    made = list(dict.fromkeys(PruningConfig.make(**settings) for settings in configs))
    called = Names(config.columns() for config in made)
    return tuple(
        SettingOutline(one.label, called.setting(one.label), one.answer_key) for one in made
    )


def _names(sources: Sequence[Source]) -> dict[str, tuple[str, str]]:
    """Return the names that each model may have in a journal: in a sweep, and in a run of its own.

    In a sweep a model has the name of the first experiment that has it.
    """
    check_names(sources)
    first: dict[ModelSource, str] = {}
    return {
        model.name: (first.setdefault(model.source(folder), model.name), model.name)
        for experiment, folder in sources
        for model in experiment.models
    }


def count_documents(sources: Iterable[Source]) -> dict[TaskKey, TaskSize]:
    """Return the size of each task of experiments; loads the tasks' data.

    Raises:
        ValueError: an unknown task, or missing data.
    """
    from otprune_lmms.scoring import load_tasks

    found: dict[TaskKey, TaskSize] = {}
    for experiment, folder in sources:
        files = task_folder(experiment, folder)
        names = [name for name in experiment.task_limits() if (files, name) not in found]
        if names:
            commits: dict[str, dict[str, str]] = {}
            tasks = load_tasks(names, files, experiment.data_revisions, commits)
            for name, task in tasks.items():
                found[files, name] = TaskSize(len(task.eval_docs), commits[name])
    return found


def files_behind(sources: Sequence[Source], sizes: Mapping[TaskKey, TaskSize]) -> list[Path] | None:
    """Return the files and folders that decide outlines, besides experiments and packages.

    These are the configurations of checkpoints, task files, data files, and the files in which the
    hub's cache notes which commit a branch is at. While they are as they were, so are the
    outlines: the number of documents on the hub counts as that of the newest commit that is here.

    Returns:
        None if they cannot be told: a task without a record, whose files may be anywhere, or data
        that is neither in files that a task names nor from the hub.
    """
    found: dict[Path, None] = {}
    for experiment, folder in sources:
        # As they are named too: a link may lead elsewhere later.
        found[folder / experiment.suite] = None
        for model in experiment.models:
            named = checkpoint(model, folder)
            local = checkpoint_folder(named)
            if local is None:
                found[_branch("models", named, model.revision)] = None
            else:
                config = [local / "config.json", folder / model.pretrained / "config.json"]
                found |= dict.fromkeys(config)
        files = task_folder(experiment, folder)
        for task in experiment.task_limits():
            own = _files_of_task(task, files, sizes[files, task], experiment.data_revisions)
            if own is None:
                return None
            found |= dict.fromkeys(own)
    return list(found)


def _files_of_task(
    task: str, folder: Path | None, size: TaskSize, revisions: Mapping[str, str]
) -> list[Path] | None:
    from otprune_lmms.scoring import data_files

    spec, record = find_spec("lmms_eval"), benchmark(task)
    data = data_files(task, folder)
    if spec is None or spec.origin is None or record.folder is None:
        return None
    if not data and not size.commits:
        return None
    found = [*data]
    for one in (Path(spec.origin).parent / "tasks" / record.folder, folder):
        tree = [] if one is None else [one, *one.rglob("*")]
        if len(tree) > _MOST_FILES:
            return None
        found += [path for path in tree if "__pycache__" not in path.parts]
    return found + [_branch("datasets", one, revisions.get(one)) for one in size.commits]


def _branch(kind: str, repository: str, revision: str | None) -> Path:
    """Return the file of the hub's cache that notes the commit of a branch, which may be none."""
    name = f"{kind}--{repository.replace('/', '--')}"
    return Path(constants.HF_HUB_CACHE) / name / "refs" / (revision or "main")
