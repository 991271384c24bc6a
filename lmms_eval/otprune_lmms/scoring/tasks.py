"""Loads lmms-eval's tasks, with data from the hub or from local task files."""

import copyreg
import hashlib
import io
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import lmms_eval.tasks
from lmms_eval.tasks import TaskManager, get_task_dict
from tenacity import RetryError

from otprune_lmms.benchmarks import all_benchmarks, benchmark
from otprune_lmms.documents import BROKEN, reason_of
from otprune_lmms.images import guarded_images
from otprune_lmms.scoring.hub_data import check_commits, data_revisions
from otprune_lmms.scoring.task_files import CODE_ERRORS, OUTPUT_TYPES, files_of, task_entries
from otprune_lmms.suggestions import did_you_mean


def task_manager(names: Sequence[str]) -> TaskManager:
    """Return lmms-eval's index of tasks: of the benchmarks' folders if all have one, else of all.

    Indexing all of lmms-eval takes 3 to 8 s, the folders of the 11 benchmarks 0.1 s.
    """
    folders = [benchmark(name).folder for name in names]
    stock = Path(lmms_eval.tasks.__file__).parent
    paths = {stock / folder for folder in folders if folder is not None}
    known = None not in folders
    # No folder may be indexed twice: with all of lmms-eval, only folders outside of it are added.
    added = sorted(str(path) for path in paths if known or not path.is_relative_to(stock))
    return TaskManager(
        "ERROR", include_path=added or None, include_defaults=not known, model_name="llava"
    )


@guarded_images()
def load_tasks(
    names: Sequence[str],
    folder: Path | str | None = None,
    revisions: Mapping[str, str] | None = None,
    loaded_from: dict[str, dict[str, str]] | None = None,
) -> dict[str, Any]:
    """Return lmms-eval's task objects by the benchmarks' names, with their data loaded.

    Args:
        names: names of benchmarks; without a record, ids of tasks. Two benchmarks of one task get
            an object each.
        folder: folder of task files (``<id>.yaml``) whose entries replace those of lmms-eval's
            tasks; None for lmms-eval's tasks unchanged.
        revisions: branch, tag or commit of data sets on the hub, by repository.
        loaded_from: for each name the commits of the repositories that its data came from are
            entered here.

    Raises:
        ValueError: an unknown name, a task file that is not usable, an output type that is not one
            of `OUTPUT_TYPES`, data that is missing or could not be fetched, or another commit of
            it than the wanted one.
    """
    if not names:
        raise ValueError("tasks must name at least one task")
    # Fingerprinting a data set may pickle the hub's session.
    copyreg.pickle(ssl.SSLContext, lambda context: (ssl.SSLContext, (context.protocol,)))
    manager = task_manager(names)
    loaded = {}
    for name in names:
        task = benchmark(name).task
        if task not in manager.all_subtasks:
            meant = did_you_mean(task, {*manager.all_subtasks, *all_benchmarks()})
            raise ValueError(f"unknown task {task!r} (lmms-eval knows no task of this id){meant}")
        data_files(name, folder)
        with data_revisions(revisions or {}) as commits:
            loaded[name] = _load(task, _override(task, _folder(folder)), manager)
        check_commits(revisions or {}, commits)
        if loaded_from is not None:
            loaded_from[name] = commits
        _check_output_type(task, loaded[name])
    return loaded


def data_files(name: str, folder: Path | str | None) -> list[Path]:
    """Return the data files that a benchmark's task file names; none for data from the hub.

    Raises:
        ValueError: the folder has no such task, its task file is not usable, or a file is missing.
    """
    base = _folder(folder)
    if base is None:
        return []
    files = files_of(task_entries(benchmark(name).task, base), base)
    for file in files:
        if not file.is_file():
            raise ValueError(f"the data of task {name} is missing: no file {file.resolve()}")
    return [file.resolve() for file in files]


def fingerprint(files: Sequence[Path]) -> str:
    """Return SHA-256 over the contents of files, as hex."""
    total = hashlib.sha256()
    for file in files:
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _folder(folder: Path | str | None) -> Path | None:
    """Return a folder of task files as an absolute path: lmms-eval reads relative ones twice."""
    return None if folder is None else Path(folder).absolute()


def _override(task: str, folder: Path | None) -> dict[str, Any]:
    """Return the entries that replace those of lmms-eval's task, its id included."""
    return {"task": task} if folder is None else task_entries(task, folder)


def _load(task: str, override: dict[str, Any], manager: TaskManager) -> Any:
    try:
        # Hides lmms-eval's progress bars, which are not about the run.
        with redirect_stderr(io.StringIO()), _broken_images_are_none():
            return get_task_dict([override], manager, "simple")[task]
    except RetryError as error:
        cause = error.last_attempt.exception()
        reason = " ".join(str(cause).split())[:300]
        raise ValueError(
            f"the data of task {task} could not be loaded ({type(cause).__name__}: {reason})"
        ) from error
    except CODE_ERRORS as error:
        raise ValueError(
            f"task {task} could not be made of its first document: {reason_of(error)}"
        ) from error


def _check_output_type(name: str, task: Any) -> None:
    """Raise ``ValueError`` unless a task's requests can be answered in one round."""
    if task.OUTPUT_TYPE not in OUTPUT_TYPES:
        raise ValueError(
            f"output_type of task {name} must be one of {', '.join(OUTPUT_TYPES)}, "
            f"got {task.OUTPUT_TYPE!r}"
        )


@contextmanager
def _broken_images_are_none() -> Iterator[None]:
    """In this context a broken image is read as None.

    lmms-eval reads the first document when it loads a task, and would fail if its image is broken.
    """
    decode = datasets.Image.decode_example

    def decode_example(self: datasets.Image, *args: Any, **kwargs: Any) -> Any:
        try:
            return decode(self, *args, **kwargs)
        except BROKEN:
            return None

    with patch.object(datasets.Image, "decode_example", decode_example):
        yield
