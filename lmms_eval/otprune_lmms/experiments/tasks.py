"""The tasks of a sweep: loaded once, whichever experiments ask them."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState

from otprune_lmms.documents import Failure
from otprune_lmms.engine import Request, requests_of
from otprune_lmms.experiments.plan import TaskGroup
from otprune_lmms.scoring import TaskScorer, load_tasks


class TaskSet:
    """Tasks by folder of their task files and name, each loaded when it is first asked for.

    Args:
        state: this process among the others.
    """

    def __init__(self, state: PartialState) -> None:
        self._state = state
        self._tasks: dict[tuple[Path | None, str], Any] = {}
        self._scorers: dict[tuple[Path | None, str, int | None], TaskScorer] = {}

    def load(self, names: Sequence[str], folder: Path | None) -> None:
        """Load tasks; all processes must call it alike.

        Raises:
            ValueError: an unknown task, data that is not there.
        """
        missing = [name for name in names if (folder, name) not in self._tasks]
        if not missing:
            return
        datasets.disable_progress_bars()
        # The first process fills the cache of prepared data, the others read it.
        with self._state.main_process_first():
            for name, task in load_tasks(missing, folder).items():
                self._tasks[folder, name] = task

    def scorer(self, name: str, folder: Path | None, limit: int | None) -> TaskScorer:
        """Return what scores a task's first documents."""
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
        """Return the requests of a task's first documents that fall to one process.

        Args:
            name: of the task.
            folder: of its task files.
            limit: documents from the start; None for all.
            failed: takes documents whose requests cannot be built; None: the first is an error.
            place: number of the process, and of how many.
        """
        task, (rank, world) = self._tasks[folder, name], place
        documents = len(task.eval_docs)
        # For a process without documents lmms-eval makes up a request.
        if rank >= min(documents, limit or documents):
            return []
        with quiet_progress_bars():
            return requests_of(task, name, rank, world, limit, failed=failed)

    def group_requests(
        self, group: TaskGroup, failed: list[Failure] | None, place: tuple[int, int]
    ) -> list[Request]:
        """Return the requests of a group's tasks that fall to one process, see `requests`."""
        found: list[Request] = []
        for name, limit in group.tasks:
            found += self.requests(name, group.folder, limit, failed, place)
        return found


@contextlib.contextmanager
def quiet_progress_bars() -> Iterator[None]:
    """Send lmms-eval's own progress bars nowhere."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
