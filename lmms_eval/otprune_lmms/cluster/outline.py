"""What progress is counted by: models, tasks and settings of experiments, as plain data.

Made of experiments by `planned`, which needs torch and lmms-eval; counted by `status`, which needs
neither.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class SettingOutline:
    """A pruning config.

    Attributes:
        label: its label.
        name: what readers are shown for it, see `results.names`.
        answer_key: its key in a journal.
    """

    label: str
    name: str
    answer_key: str


@dataclass(frozen=True)
class ModelOutline:
    """A model of an experiment.

    Attributes:
        name: its name in the experiment.
        called: names that it may have in a journal: in a sweep, and in a run of its own.
    """

    name: str
    called: tuple[str, str]


@dataclass(frozen=True)
class TaskOutline:
    """A task of an experiment.

    Attributes:
        folder: of its files; None for the benchmarks' own data.
        name: its name.
        documents: how many of its first documents are asked about.
    """

    folder: str | None
    name: str
    documents: int


@dataclass(frozen=True)
class ExperimentOutline:
    """An experiment: every model answers every task under every setting."""

    name: str
    models: tuple[ModelOutline, ...]
    tasks: tuple[TaskOutline, ...]
    settings: tuple[SettingOutline, ...]
