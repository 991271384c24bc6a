"""How far a sweep is: by experiment, model and setting, without its models."""

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

Documents = Mapping[tuple[Path | None, str], int]
"""How many documents a task has, by folder of its task files and id."""


@dataclass(frozen=True)
class StatusRow:
    """One setting of one model of one experiment.

    Attributes:
        experiment: its name; of a journal alone, the names that the journal has.
        model: its name.
        setting: label of the pruning config.
        answered: requests that have an answer.
        asked: requests in all.
    """

    experiment: str
    model: str
    setting: str
    answered: int
    asked: int


@dataclass(frozen=True)
class Status:
    """How far a sweep is.

    Attributes:
        rows: by experiment, model and setting.
        failed: documents left out: model, task, number, reason.
        missing: answers that are still to be made; equal requests count once.
        writers: processes at work.
    """

    rows: tuple[StatusRow, ...]
    failed: tuple[tuple[str, str, int, str], ...]
    missing: int
    writers: tuple[ActiveWriter, ...]

    @property
    def rate(self) -> float:
        """Answers a second of all processes at work."""
        return sum(writer.rate for writer in self.writers)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all is answered at that rate; None where nobody is at work."""
        return self.missing / self.rate if self.rate else None

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON."""
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
    """Return how far experiments are.

    Args:
        sources: experiments, and the folders of their files.
        state: of the journals.
        documents: how many documents each of their tasks has.

    Raises:
        ConfigError: a name that stands for different models or experiments.
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
            for config in experiment.pruning.configs():
                answered, asked = count.config(requests, names[model.name][0], tasks, config)
                rows.append(StatusRow(experiment.name, model.name, config.label, answered, asked))
    return count.status(rows)


class _Count:
    """What is missing and what was left out, over all experiments; equal requests count once."""

    def __init__(self, state: JournalState) -> None:
        self.state = state
        self.failed: dict[tuple[str, str, int], str] = {}
        self.missing: set[Key] = set()
        self.unread: dict[tuple, int] = {}

    def config(
        self, requests: ModelRequests, model: str, tasks: Documents, config: PruningConfig
    ) -> tuple[int, int]:
        """Count one config in; return how many requests are answered, and how many there are."""
        fingerprint, answered, asked = config.fingerprint, 0, 0
        for (files, task), documents in tasks.items():
            keys = [Key(fingerprint, one) for one in requests.of(task, documents)]
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
    """Return what journals alone tell: configs that have answers, and what their models were asked.

    Cells and documents that nobody has begun are not known here.
    """
    count = _Count(state)
    rows: list[StatusRow] = []
    for fingerprint, (name, experiments) in _models(state).items():
        requests = ModelRequests(state, fingerprint)
        count.failed |= {(name, *place): reason for place, reason in requests.failed.items()}
        tasks: Documents = {
            (None, task): 1 + max(known) for task, known in requests.by_task.items() if known
        }
        for settings in state.configs.values():
            config = PruningConfig.make(**settings)
            keys = [Key(config.fingerprint, one) for one in requests.all()]
            if not state.answered.isdisjoint(keys):
                answered, asked = count.config(requests, name, tasks, config)
                rows.append(StatusRow(experiments, name, config.label, answered, asked))
    return count.status(rows)


def _models(state: JournalState) -> dict[str, tuple[str, str]]:
    """Return the name and the experiments of each model that was asked, by fingerprint."""
    found: dict[str, tuple[str, dict[str, None]]] = {}
    for request_list in state.request_lists:
        _, experiments = found.setdefault(request_list.model, (request_list.name, {}))
        experiments.update(dict.fromkeys(request_list.experiment.split()))
    return {model: (name, " ".join(many)) for model, (name, many) in found.items()}


def _names(sources: Sequence[Source]) -> dict[str, tuple[str, str]]:
    """Return the names under which a journal may know each model: in a sweep, and in its own run.

    A sweep calls a model as the first experiment that has it.
    """
    check_names(sources)
    first: dict[ModelSource, str] = {}
    return {
        model.name: (first.setdefault(model.source(folder), model.name), model.name)
        for experiment, folder in sources
        for model in experiment.models
    }


def count_documents(experiments: Iterable[Source]) -> dict[tuple[Path | None, str], int]:
    """Return how many documents each task of experiments has; their data is loaded for it.

    Raises:
        ValueError: an unknown task, data that is not there.
    """
    from otprune_lmms.scoring import load_tasks

    found: dict[tuple[Path | None, str], int] = {}
    for experiment, folder in experiments:
        files = task_folder(experiment, folder)
        names = [name for name in experiment.task_limits() if (files, name) not in found]
        if names:
            tasks = load_tasks(names, files)
            found |= {(files, name): len(task.eval_docs) for name, task in tasks.items()}
    return found
