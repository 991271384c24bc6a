"""Experiment files for the commands: read, checked, changed by options."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otprune_lmms.cli.common import check_memory, fail
from otprune_lmms.embedded import experiment_names
from otprune_lmms.installation import check_installation
from otprune_lmms.suggestions import did_you_mean
from otprune_lmms.yaml_files import YamlError, read_yaml

if TYPE_CHECKING:
    from otprune_lmms.experiments.config import Experiment
    from otprune_lmms.experiments.plan import Source

logger = logging.getLogger("otprune_lmms")


@dataclass(frozen=True, slots=True)
class Changes:
    """Options of the command line that replace values of the experiment files.

    Attributes:
        limit: documents of each task, from the start.
        batch_size: requests in one call of the language model.
        without_java: leave caption metrics out where Java is missing.
        strict: whether a document that cannot be used is an error.
    """

    limit: int | None = None
    batch_size: int | None = None
    without_java: bool = False
    strict: bool = False


def read_sources(
    paths: Sequence[Path], changes: Changes | None = None, *, hub: bool = True
) -> "list[Source]":
    """Return the experiments of some files; exit with code 2 if one is invalid.

    A file that is missing or no YAML is reported before torch is imported, and so is a hub that
    cannot be reached.

    Args:
        paths: the files.
        changes: options of the command line.
        hub: whether models and data will be loaded.
    """
    contents = _read(paths)
    check_memory()
    try:
        check_installation()
    except RuntimeError as error:
        fail(error, 2)
    if hub:
        _check_hub(contents, paths)
    read_variables()
    from otprune_lmms.experiments.config import ConfigError, load_experiment
    from otprune_lmms.experiments.plan import Source, check_names

    try:
        loaded = [_changed(load_experiment(path), changes or Changes()) for path in paths]
        sources = [Source(one, path.parent) for one, path in zip(loaded, paths, strict=True)]
        check_names(sources)
    except (ConfigError, RuntimeError) as error:
        fail(error, 2)
    return sources


def read_variables() -> None:
    """Take the variables of a launcher from the environment; exit with code 2 at impossible ones.

    Settings of pruning are not used, and a warning says so.
    """
    from otprune_lmms.environment import VARIABLES, SettingsError, read_environment

    try:
        environment = read_environment()
    except SettingsError as error:
        fail(error, 2)
    if environment.rank:
        logger.setLevel(logging.WARNING)
    elif environment.settings():
        names = ", ".join(VARIABLES[name] for name in environment.settings())
        logger.warning("%s in the environment: not used, an experiment is its file", names)


def check_devices(sources: "Sequence[Source]") -> None:
    """Exit with code 2 if an experiment names a device that this machine does not have."""
    from otprune.checks import check_device

    for source in sources:
        for model in source.experiment.models:
            if model.device is not None:
                name = f"{source.experiment.name}: device of {model.name}"
                try:
                    check_device(model.device, name)
                except ValueError as error:
                    fail(error, 2)


def _read(paths: Sequence[Path]) -> list[Any]:
    """Return the contents of experiment files; exit with code 2 where one cannot be read."""
    found = []
    for path in paths:
        try:
            found.append(read_yaml(path))
        except OSError as error:
            files = map(str, path.parent.glob("*.y*ml"))
            near = list(files) if path.suffix else experiment_names()
            meant = did_you_mean(path, near)
            fail(f"{path}: {error.strerror or error}{meant}", 2)
        except YamlError as error:
            fail(error, 2)
    return found


def _check_hub(contents: Sequence[Any], paths: Sequence[Path]) -> None:
    """Exit with code 1 where models or data are on the hub, which cannot be reached.

    Args:
        contents: the experiments as their files have them, not checked yet.
        paths: the files.
    """
    from otprune_lmms.files import is_folder
    from otprune_lmms.hub import HubError, check_reachable, model_needs, task_needs

    needs = []
    for content, path in zip(contents, paths, strict=True):
        experiment = content if isinstance(content, dict) else {}
        models, tasks = _listed(experiment, "models"), _listed(experiment, "tasks")
        named = [one.get("pretrained") for one in models if isinstance(one, dict)]
        needs += model_needs(one for one in named if isinstance(one, str))
        suite = experiment.get("suite")
        if suite == "mini" or not isinstance(suite, str):
            continue
        own = path.parent / suite if suite.startswith(".") else None
        if own is not None and not is_folder(own):
            continue  # A folder that is not there is said when the experiment is checked.
        ids = [one.get("id") if isinstance(one, dict) else one for one in tasks]
        needs += task_needs((one for one in ids if isinstance(one, str)), own)
    try:
        check_reachable(needs)
    except HubError as error:
        fail(error, 1)


def _listed(experiment: dict[Any, Any], key: str) -> list[Any]:
    found = experiment.get(key)
    return found if isinstance(found, list) else []


def eval_time() -> bool:
    """Return whether EVAL_TIME is set to true; the other variables do not change experiments."""
    from otprune_lmms.environment import read_environment

    return bool(read_environment().eval_time)


def _changed(experiment: "Experiment", changes: Changes) -> "Experiment":
    """Return an experiment with the options of the command line."""
    found: dict[str, object] = {}
    if changes.limit is not None:
        tasks = [task.model_copy(update={"limit": None}) for task in experiment.tasks]
        found |= {"limit": changes.limit, "tasks": tuple(tasks)}
    if changes.batch_size is not None:
        size = {"batch_size": changes.batch_size}
        found["models"] = tuple(model.model_copy(update=size) for model in experiment.models)
    if changes.without_java:
        found["java"] = "optional"
    if changes.strict:
        found["strict"] = True
    return experiment.model_copy(update=found)
