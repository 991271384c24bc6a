"""The state of a sweep in its journals: answers, requests, writing processes."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from otprune_lmms.journal import Key, RequestList, read_request_lists
from otprune_lmms.journal.faults import Faults
from otprune_lmms.journal.lines import PartReader
from otprune_lmms.journal.parts import is_locked, parts


@dataclass(frozen=True)
class ActiveWriter:
    """A process that is writing answers now.

    Attributes:
        file: the journal's file that it writes.
        experiment: names of its experiments, separated by spaces.
        models: names of its models.
        process: "host", "pid" and "begun" (seconds since 1970), from its session header.
        answers: number of answers written since its start.
        seconds: seconds from its start to its newest answer.
    """

    file: Path
    experiment: str
    models: tuple[str, ...]
    process: Mapping[str, Any]
    answers: int
    seconds: float

    @property
    def rate(self) -> float:
        """Answers per second since its start, reading and encoding images included."""
        return self.answers / self.seconds if self.seconds > 0 else 0.0


@dataclass
class JournalState:
    """The content of one or several journals, without the answers' texts.

    Attributes:
        answered: keys of the answers.
        configs: each pruning config as `PruningConfig.as_dict`, by fingerprint.
        request_lists: the requests of each process, the oldest first.
        writers: processes that are writing now.
    """

    answered: set[Key] = field(default_factory=set)
    configs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    request_lists: list[RequestList] = field(default_factory=list)
    writers: list[ActiveWriter] = field(default_factory=list)

    def model(self, names: Iterable[str]) -> str | None:
        """Return the fingerprint of the newest request list's model with one of some names."""
        wanted = set(names)
        found = [one.model for one in self.request_lists if one.name in wanted]
        return found[-1] if found else None

    @property
    def rate(self) -> float:
        """Answers per second of all writing processes."""
        return sum(writer.rate for writer in self.writers)


def read_state(folders: Sequence[Path]) -> JournalState:
    """Return the state of journals; a missing folder counts as an empty journal.

    Every line is read once and nothing is written; other processes may write meanwhile. What cannot
    be used is left out with a warning.

    Raises:
        JournalError: a file cannot be read.
    """
    state = JournalState()
    for folder in dict.fromkeys(folders):
        faults = Faults(folder)
        for path, _ in parts(folder):
            _read_part(path, state, faults)
        faults.warn()
        state.request_lists += read_request_lists(folder)
    state.request_lists.sort(key=lambda request_list: request_list.time)
    return state


def _read_part(path: Path, state: JournalState, faults: Faults) -> None:
    session: Mapping[str, Any] = {}
    answers = 0
    locked = is_locked(path)
    reader = PartReader(path)
    for _, line in reader:
        if line["kind"] == "session":
            session, answers = line["session"], 0
        else:
            one = line["answer"]
            config = sys.intern(one["config"])
            state.answered.add(Key(config, one["request"]))
            state.configs.setdefault(config, one["settings"])
            answers += 1
    faults.add(reader, locked)
    if locked:
        state.writers.append(_writer(path, session, answers))


def _writer(path: Path, session: Mapping[str, Any], answers: int) -> ActiveWriter:
    process = session.get("process", {})
    try:
        newest = path.stat().st_mtime
    except FileNotFoundError:
        newest = time.time()
    return ActiveWriter(
        file=path,
        experiment=str(session.get("experiment", "")),
        models=tuple(session.get("models", {}).values()),
        process=process,
        answers=answers,
        seconds=max(0.0, newest - process.get("begun", newest)),
    )


class ModelRequests:
    """The requests of one model: their digests, by task and document.

    Args:
        state: state of the journals.
        model: the model's fingerprint; None has no requests.

    Attributes:
        by_task: digests of each document's requests, by task and document.
        failed: reasons for left-out documents, by task and number.
    """

    def __init__(self, state: JournalState, model: str | None) -> None:
        self.by_task: dict[str, dict[int, list[str]]] = {}
        self.failed: dict[tuple[str, int], str] = {}
        known = [one for one in state.request_lists if one.model == model]
        # A later run replaces a document's requests: its data or prompts may have changed.
        for request_list in known:
            fresh: set[tuple[str, int]] = set()
            for at, digest in request_list.requests.items():
                documents = self.by_task.setdefault(at.task, {})
                place = (at.task, at.doc_id)
                if place not in fresh:
                    documents[at.doc_id] = []
                    fresh.add(place)
                    self.failed.pop(place, None)
                documents[at.doc_id].append(digest)
            for task, doc_id, reason in request_list.failed:
                self.by_task.get(task, {}).pop(doc_id, None)
                self.failed[task, doc_id] = reason

    def all(self) -> Iterator[str]:
        """Iterate over all digests."""
        for documents in self.by_task.values():
            for digests in documents.values():
                yield from digests

    def of(self, task: str, documents: int) -> list[str]:
        """Return the digests of the requests about a task's first documents."""
        return [
            digest
            for doc_id, digests in self.by_task.get(task, {}).items()
            if doc_id < documents
            for digest in digests
        ]

    def unread(self, task: str, documents: int) -> int:
        """Return the estimated number of requests of documents that no process has read yet.

        Each such document counts as the task's mean number of requests per read document, rounded
        up.

        Args:
            task: name of the task.
            documents: how many of its first documents are considered.
        """
        known = self.by_task.get(task, {})
        read = sum(doc_id < documents for doc_id in known)
        failed = sum(name == task and doc_id < documents for name, doc_id in self.failed)
        if not known:
            return documents - failed
        each = -(-sum(map(len, known.values())) // len(known))
        return max(0, documents - read - failed) * each
