"""The progress of a sweep by experiment, model and pruning config; no model is loaded."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otprune_lmms.cluster.outline import ExperimentOutline, SettingOutline
from otprune_lmms.cluster.state import ActiveWriter, JournalState, ModelRequests
from otprune_lmms.journal import Key

Documents = Mapping[tuple[str | None, str], int]
"""Number of documents of a task, by folder of its task files and name."""


@dataclass(frozen=True)
class StatusRow:
    """The progress of one pruning config of one model of one experiment.

    Attributes:
        experiment: name of the experiment; from a journal alone, the names in the journal.
        model: name of the model.
        setting: label of the pruning config.
        name: what readers are shown for it, see `results.names`.
        answered: number of requests with an answer.
        asked: number of requests.
    """

    experiment: str
    model: str
    setting: str
    name: str
    answered: int
    asked: int


@dataclass(frozen=True)
class Status:
    """The progress of a sweep.

    Attributes:
        rows: one for each experiment, model and pruning config.
        failed: documents left out: model, task, number, reason.
        missing: number of missing answers; equal requests count once.
        writers: processes that are writing now.
    """

    rows: tuple[StatusRow, ...]
    failed: tuple[tuple[str, str, int, str], ...]
    missing: int
    writers: tuple[ActiveWriter, ...]

    @property
    def rate(self) -> float:
        """Answers per second of all writing processes."""
        return sum(writer.rate for writer in self.writers)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until no answer is missing, at that rate; None without a writing process."""
        return self.missing / self.rate if self.rate else None

    def plain(self) -> dict[str, Any]:
        """Return the progress, ready for JSON."""
        return {
            "answered": sum(row.answered for row in self.rows),
            "asked": sum(row.asked for row in self.rows),
            "missing": self.missing,
            "rate": round(self.rate, 3),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left, 1),
            "rows": [vars(row) for row in self.rows],
            "failed": [
                {"model": model, "task": task, "doc_id": doc_id, "reason": reason}
                for model, task, doc_id, reason in self.failed
            ],
            "writers": [_plain_writer(writer) for writer in self.writers],
        }


def _plain_writer(writer: ActiveWriter) -> dict[str, Any]:
    return {
        "file": str(writer.file),
        "experiment": writer.experiment,
        "models": list(writer.models),
        "process": dict(writer.process),
        "answers": writer.answers,
        "rate": round(writer.rate, 3),
    }


def status_of(outlines: Iterable[ExperimentOutline], state: JournalState) -> Status:
    """Return the progress of experiments.

    Args:
        outlines: of the experiments, see `planned.outlines_of`.
        state: state of their journals.
    """
    count = _Count(state)
    rows: list[StatusRow] = []
    for outline in outlines:
        tasks = {(task.folder, task.name): task.documents for task in outline.tasks}
        sizes = {task.name: task.documents for task in outline.tasks}
        for model in outline.models:
            requests = ModelRequests(state, state.model(model.called))
            count.failed |= {
                (model.name, *place): reason
                for place, reason in requests.failed.items()
                if place[1] < sizes.get(place[0], 0)
            }
            for setting in outline.settings:
                answered, asked = count.setting(requests, model.called[0], tasks, setting)
                row = (outline.name, model.name, setting.label, setting.name)
                rows.append(StatusRow(*row, answered, asked))
    return count.status(rows)


class _Count:
    """Missing answers and left-out documents of all experiments; equal requests count once."""

    def __init__(self, state: JournalState) -> None:
        self.state = state
        self.failed: dict[tuple[str, str, int], str] = {}
        self.missing: set[Key] = set()
        self.unread: dict[tuple, int] = {}

    def setting(
        self, requests: ModelRequests, model: str, tasks: Documents, setting: SettingOutline
    ) -> tuple[int, int]:
        """Add a setting; return the number of its answered requests, and of all its requests."""
        answer_key, answered, asked = setting.answer_key, 0, 0
        for (files, task), documents in tasks.items():
            keys = [Key(answer_key, one) for one in requests.of(task, documents)]
            left = [key for key in keys if key not in self.state.answered]
            ahead = requests.unread(task, documents)
            place = (model, files, task, answer_key)
            self.missing.update(left)
            self.unread[place] = max(ahead, self.unread.get(place, 0))
            answered += len(keys) - len(left)
            asked += len(keys) + ahead
        return answered, asked

    def status(self, rows: Sequence[StatusRow]) -> Status:
        """Return what was counted."""
        failed = tuple((*place, reason) for place, reason in sorted(self.failed.items()))
        missing = len(self.missing) + sum(self.unread.values())
        return Status(tuple(rows), failed, missing, tuple(self.state.writers))


def journal_status(state: JournalState, settings: Sequence[SettingOutline]) -> Status:
    """Return the progress that follows from journals alone.

    Only pruning configs with an answer and documents in a request list are known.

    Args:
        state: state of the journals.
        settings: the outlines of its configs, see `planned.settings_of`.
    """
    count = _Count(state)
    rows: list[StatusRow] = []
    for fingerprint, (name, experiments) in _models(state).items():
        requests = ModelRequests(state, fingerprint)
        count.failed |= {(name, *place): reason for place, reason in requests.failed.items()}
        tasks: Documents = {
            (None, task): 1 + max(known) for task, known in requests.by_task.items() if known
        }
        for setting in settings:
            keys = [Key(setting.answer_key, one) for one in requests.all()]
            if not state.answered.isdisjoint(keys):
                answered, asked = count.setting(requests, name, tasks, setting)
                row = (experiments, name, setting.label, setting.name)
                rows.append(StatusRow(*row, answered, asked))
    return count.status(rows)


def _models(state: JournalState) -> dict[str, tuple[str, str]]:
    """Return the name and the experiments of each model with requests, by fingerprint."""
    found: dict[str, tuple[str, dict[str, None]]] = {}
    for request_list in state.request_lists:
        _, experiments = found.setdefault(request_list.model, (request_list.name, {}))
        experiments.update(dict.fromkeys(request_list.experiment.split()))
    return {model: (name, " ".join(many)) for model, (name, many) in found.items()}
