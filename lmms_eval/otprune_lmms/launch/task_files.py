"""Task files of ``--include_path``: one that is called like a task of lmms-eval changes that task.

lmms-eval itself prefers its own task of a name, so a folder such as ours of the embedded data could
only be used as a whole (``--tasks FOLDER``).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config

_CHANGES = "_otprune_changes"
"""Attribute of a `TaskManager`: files of task changes by the task's name."""


def let_included_tasks_change_ours() -> None:
    """From now on entries of a task file of ``--include_path`` replace those of the task it names.

    Entries that the file does not have stay those of lmms-eval's task, as in the folders of task
    files of experiments. May be called more than once.
    """
    if getattr(TaskManager, _CHANGES, None) is not None:
        return
    index_of, config_of = TaskManager.initialize_tasks, TaskManager._get_config

    def initialize_tasks(
        self: TaskManager,
        include_path: str | Sequence[str] | None = None,
        include_defaults: bool = True,
    ) -> dict[str, Any]:
        folders = [include_path] if isinstance(include_path, str) else [*(include_path or ())]
        index = index_of(self, folders or None, include_defaults)
        changes = _changes(self, folders, index) if include_defaults else {}
        setattr(self, _CHANGES, changes)
        return index

    def _get_config(self: TaskManager, name: str) -> dict[str, Any]:
        config = config_of(self, name)
        file = getattr(self, _CHANGES).get(name)
        return config if file is None else {**config, **load_yaml_config(file, mode="full")}

    TaskManager.initialize_tasks, TaskManager._get_config = initialize_tasks, _get_config
    setattr(TaskManager, _CHANGES, {})


def _changes(manager: TaskManager, folders: Sequence[str], index: dict[str, Any]) -> dict[str, str]:
    """Return the files in some folders that change a task of an index, by the task's name."""
    return {
        name: file
        for folder in reversed(folders)
        for name, file in _tasks(manager, folder)
        if index[name]["type"] == "task" and Path(file) != Path(index[name]["yaml_path"])
    }


def _tasks(manager: TaskManager, folder: str) -> Iterator[tuple[str, str]]:
    for name, entry in manager._get_task_and_group(folder).items():
        if entry["type"] == "task":
            yield name, entry["yaml_path"]
