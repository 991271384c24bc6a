"""The progress of a sweep by experiment, model and pruning config; no model is loaded."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otprune_lmms.cluster.state import ActiveWriter, JournalState, ModelRequests
from otprune_lmms.experiments.config import task_folder
from otprune_lmms.experiments.plan import Source, check_names
from otprune_lmms.journal import Key
from otprune_lmms.models import ModelSource
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.names import Names

Documents = Mapping[tuple[Path | None, str], int]
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


def status_of(sources: Sequence[Source], state: JournalState, documents: Documents) -> Status:
    """Return the progress of experiments.

    Args:
        sources: the experiments.
        state: state of their journals.
        documents: number of documents of each of their tasks, see `count_documents`.

    Raises:
        ConfigError: two models or two experiments have the same name.
    """
    names, count = _names(sources), _Count(state)
    rows: list[StatusRow] = []
    for experiment, folder in sources:
        files, limits = task_folder(experiment, folder), experiment.task_limits()
        tasks = {
            (files, task): min(documents[files, task], limit or documents[files, task])
            for task, limit in limits.items()
        }
        for model in experiment.models:
            requests = ModelRequests(state, state.model(names[model.name]))
            count.failed |= {
                (model.name, *place): reason
                for place, reason in requests.failed.items()
                if place[1] < tasks.get((files, place[0]), 0)
            }
            called = experiment.pruning.names
            for config in experiment.pruning.configs():
                answered, asked = count.config(requests, names[model.name][0], tasks, config)
                named = (config.label, called.setting(config.label))
                rows.append(StatusRow(experiment.name, model.name, *named, answered, asked))
    return count.status(rows)


class _Count:
    """Missing answers and left-out documents of all experiments; equal requests count once."""

    def __init__(self, state: JournalState) -> None:
        self.state = state
        self.failed: dict[tuple[str, str, int], str] = {}
        self.missing: set[Key] = set()
        self.unread: dict[tuple, int] = {}

    def config(
        self, requests: ModelRequests, model: str, tasks: Documents, config: PruningConfig
    ) -> tuple[int, int]:
        """Add one config; return the number of its answered requests, and of all its requests."""
        answer_key, answered, asked = config.answer_key, 0, 0
        for (files, task), documents in tasks.items():
            keys = [Key(answer_key, one) for one in requests.of(task, documents)]
            left = [key for key in keys if key not in self.state.answered]
            ahead = requests.unread(task, documents)
            place = (model, files, task, config)
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


def journal_status(state: JournalState) -> Status:
    """Return the progress that follows from journals alone.

    Only pruning configs with an answer and documents in a request list are known.
    """
    count = _Count(state)
    rows: list[StatusRow] = []
    for fingerprint, (name, experiments) in _models(state).items():
        requests = ModelRequests(state, fingerprint)
        count.failed |= {(name, *place): reason for place, reason in requests.failed.items()}
        tasks: Documents = {
            (None, task): 1 + max(known) for task, known in requests.by_task.items() if known
        }
        configs = [PruningConfig.make(**settings) for settings in state.configs.values()]
        called = Names(config.columns() for config in configs)
        for config in configs:
            keys = [Key(config.answer_key, one) for one in requests.all()]
            if not state.answered.isdisjoint(keys):
                answered, asked = count.config(requests, name, tasks, config)
                named = (config.label, called.setting(config.label))
                rows.append(StatusRow(experiments, name, *named, answered, asked))
    return count.status(rows)


def _models(state: JournalState) -> dict[str, tuple[str, str]]:
    """Return the name and the experiments of each model with requests, by fingerprint."""
    found: dict[str, tuple[str, dict[str, None]]] = {}
    for request_list in state.request_lists:
        _, experiments = found.setdefault(request_list.model, (request_list.name, {}))
        experiments.update(dict.fromkeys(request_list.experiment.split()))
    return {model: (name, " ".join(many)) for model, (name, many) in found.items()}


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


def count_documents(experiments: Iterable[Source]) -> dict[tuple[Path | None, str], int]:
    """Return the number of documents of each task of experiments; loads the tasks' data.

    Raises:
        ValueError: an unknown task, or missing data.
    """
    from otprune_lmms.scoring import load_tasks

    found: dict[tuple[Path | None, str], int] = {}
    for experiment, folder in experiments:
        files = task_folder(experiment, folder)
        names = [name for name in experiment.task_limits() if (files, name) not in found]
        if names:
            tasks = load_tasks(names, files, experiment.data_revisions)
            found |= {(files, name): len(task.eval_docs) for name, task in tasks.items()}
    return found
