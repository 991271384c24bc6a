"""Bootstrap draws of a model: every row's score of every task in every draw."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from otprune_lmms.reporting.statistics.averages import MEAN_OF_RATIOS
from otprune_lmms.reporting.statistics.bootstrap import draw_scores
from otprune_lmms.reporting.statistics.gather import (
    TaskSamples,
    arrange,
    counted_documents,
    frames_by_row,
    gather,
)
from otprune_lmms.results.frames import Frame, PandasSeries

SAME_SCORE = 0.01
"""Largest difference of a score in records and in samples (some tasks round theirs)."""

Draws = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TaskDraws:
    """One task of a model.

    Attributes:
        groups: its samples, one entry for each set of documents; usually one.
        draws: by row ``[B]``.
        frames: by row, one for each of its seeds.
        problems: why a row that has a score has no draws.
    """

    groups: Sequence[TaskSamples]
    draws: Draws
    frames: Mapping[str, Sequence[Frame]]
    problems: Mapping[str, str]

    def of(self, row: str) -> TaskSamples:
        """Return the samples that a row is among."""
        return next(group for group in self.groups if row in group.terms)


@dataclass(frozen=True)
class ModelDraws:
    """A model's scores and draws.

    Attributes:
        model: its name.
        scores: rows by tasks, as `averages.headline_scores` gives them.
        tasks: by task.
        count: draws of each.
        seed: of all draws.
    """

    model: str
    scores: Frame
    tasks: Mapping[str, TaskDraws]
    count: int
    seed: int

    def draws(self, row: str, tasks: Sequence[str]) -> dict[str, np.ndarray] | None:
        """Return a row's draws by task; None unless every one of the tasks has them."""
        found = {task: self.tasks[task].draws.get(row) for task in tasks if task in self.tasks}
        whole = {task: drawn for task, drawn in found.items() if drawn is not None}
        return whole if tasks and len(whole) == len(tasks) else None

    def matched(
        self, task: str, pairs: Sequence[tuple[str, str]]
    ) -> Iterator[tuple[TaskSamples, Draws, list[tuple[str, str]]]]:
        """Yield the pairs of rows that have draws, with samples and draws on common documents."""
        data = self.tasks[task]
        known = [pair for pair in pairs if all(row in data.draws for row in pair)]
        for group in data.groups:
            inside = [pair for pair in known if all(row in group.terms for row in pair)]
            if inside:
                yield group, data.draws, inside
        for pair in known:
            if data.of(pair[0]) is data.of(pair[1]):
                continue
            frames = {row: data.frames[row] for row in pair}
            documents = counted_documents([frame for row in pair for frame in frames[row]])
            if documents.size:
                common = arrange(task, frames, documents)
                yield common, draw_scores(common, self.count, self.seed), [pair]


def draw_model(model: str, scores: Frame, samples: Frame, count: int, seed: int) -> ModelDraws:
    """Return a model's draws.

    A row has none for a task whose samples do not give its score, or lie in one cluster.

    Args:
        model: its name.
        scores: its rows by tasks.
        samples: its samples.
        count: draws.
        seed: of them.
    """
    by_task = dict(list(samples.groupby("task", sort=False, observed=True)))
    tasks = {
        str(task): _draw_task(str(task), scores[task], by_task[task], count, seed)
        for task in scores.columns
        if task in by_task
    }
    return ModelDraws(model, scores, tasks, count, seed)


def _draw_task(task: str, scores: PandasSeries, samples: Frame, count: int, seed: int) -> TaskDraws:
    groups = gather(task, samples)
    draws: dict[str, np.ndarray] = {}
    problems: dict[str, str] = {}
    for group in groups:
        drawn = draw_scores(group, count, seed)
        for row, values in drawn.items():
            recorded = scores.get(row, np.nan)
            if not abs(group.point(row) - recorded) <= SAME_SCORE:
                problems[row] = f"records say {recorded:.4f}, samples {group.point(row):.4f}"
            elif group.clusters < 2:
                problems[row] = "one image"
            else:
                draws[row] = values
    missing = [row for row in scores.dropna().index if row not in draws and row not in problems]
    problems |= dict.fromkeys(missing, "no values of documents")
    return TaskDraws(groups, draws, frames_by_row(samples), problems)


def shared_draws(model: ModelDraws, row: str, base: str, rule: str) -> tuple[Draws, Draws] | None:
    """Return the draws of a row and of the unpruned model for the tasks of a relative average.

    Those that both have; without those whose unpruned score is 0 if ratios are averaged. None
    unless both have draws for every one of them.
    """
    tasks = used_tasks(model.scores, [row, base], rule)
    own, other = model.draws(row, tasks), model.draws(base, tasks)
    return None if own is None or other is None else (own, other)


def used_tasks(scores: Frame, rows: Sequence[str], rule: str) -> list[str]:
    """Return the tasks that enter a relative average of some rows, the unpruned model the last."""
    table = scores.loc[list(rows)].dropna(axis="columns")
    if rule == MEAN_OF_RATIOS:
        table = table.loc[:, table.iloc[-1] != 0]
    return [str(task) for task in table.columns]
