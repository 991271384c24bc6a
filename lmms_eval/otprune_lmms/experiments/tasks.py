"""The tasks of a sweep, each loaded once for all experiments."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState

from otprune_lmms.benchmarks import Options, benchmark
from otprune_lmms.documents import BROKEN, Failure
from otprune_lmms.engine import Request, requests_of
from otprune_lmms.experiments.option_questions import OptionQuestion, option_questions
from otprune_lmms.experiments.plan import TaskGroup, TaskKey, TaskSize
from otprune_lmms.scoring import TaskScorer, load_tasks


class TaskSet:
    """Loaded tasks by folder of their task files and name.

    Args:
        state: this process's state among those of a launcher.
        revisions: of data sets on the hub, by repository; see `plan.data_revisions`.
    """

    def __init__(self, state: PartialState, revisions: Mapping[str, str] | None = None) -> None:
        self._state = state
        self._revisions = revisions or {}
        self._commits: dict[tuple[Path | None, str], dict[str, str]] = {}
        self._tasks: dict[tuple[Path | None, str], Any] = {}
        self._scorers: dict[tuple[Path | None, str, int | None], TaskScorer] = {}

    def load(self, names: Sequence[str], folder: Path | None) -> None:
        """Load tasks that are not loaded yet; all processes must make the same calls.

        Raises:
            ValueError: an unknown task, or missing data.
        """
        missing = [name for name in names if (folder, name) not in self._tasks]
        if not missing:
            return
        datasets.disable_progress_bars()
        # The first process fills the cache of prepared data, the others read it.
        with self._state.main_process_first():
            commits: dict[str, dict[str, str]] = {}
            for name, task in load_tasks(missing, folder, self._revisions, commits).items():
                self._tasks[folder, name] = task
                self._commits[folder, name] = commits[name]

    def commits(self, names: Sequence[str], folder: Path | None) -> dict[str, str]:
        """Return the commit of each repository on the hub that loaded tasks have data from."""
        found: dict[str, str] = {}
        for name in names:
            found |= self._commits[folder, name]
        return found

    def sizes(self) -> dict[TaskKey, TaskSize]:
        """Return the size of each task that is loaded."""
        return {
            key: TaskSize(len(task.eval_docs), self._commits[key])
            for key, task in self._tasks.items()
        }

    def scorer(self, name: str, folder: Path | None, limit: int | None) -> TaskScorer:
        """Return the scorer of a task's first documents, made once."""
        key = (folder, name, limit)
        if key not in self._scorers:
            self._scorers[key] = TaskScorer(self._tasks[folder, name], name, limit)
        return self._scorers[key]

    def requests(
        self,
        name: str,
        folder: Path | None,
        limit: int | None,
        failed: list[Failure] | None,
        place: tuple[int, int] = (0, 1),
    ) -> list[Request]:
        """Return one process's requests about a task's first documents.

        Args:
            name: name of the task.
            folder: folder of its task files; None for the benchmark's own data.
            limit: documents from the start; None for all.
            failed: documents whose requests cannot be built are appended to it; None: the first is
                an error.
            place: documents of this process, see `Shard.place`.
        """
        task, (rank, world) = self._tasks[folder, name], place
        documents = len(task.eval_docs)
        # lmms-eval adds a request to a process that has no documents.
        if rank >= min(documents, limit or documents):
            return []
        with quiet_progress_bars():
            return requests_of(task, name, rank, world, limit, failed=failed)

    def option_questions(
        self, requests: Sequence[Request], folder: Path | None
    ) -> list[OptionQuestion]:
        """Return the questions about the options of documents.

        A document whose options cannot be read has none.

        Args:
            requests: all requests about each document.
            folder: folder of their tasks' files.
        """
        tasks = {request.task for request in requests}
        documents = {name: self._tasks[folder, name].eval_docs_no_media for name in tasks}

        def options(name: str, doc_id: int) -> Options | None:
            rule = benchmark(name).options
            try:
                return None if rule is None else rule(documents[name][doc_id])
            except BROKEN:
                return None

        return option_questions(requests, options)

    def group_requests(
        self, group: TaskGroup, failed: list[Failure] | None, place: tuple[int, int]
    ) -> list[Request]:
        """Return one process's requests of a group's tasks, see `requests`."""
        found: list[Request] = []
        for name, limit in group.tasks:
            found += self.requests(name, group.folder, limit, failed, place)
        return found


@contextlib.contextmanager
def quiet_progress_bars() -> Iterator[None]:
    """In this context lmms-eval's own progress bars are hidden."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
