"""Score all cells of a model, each set of answers once."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from otprune_lmms.experiments.config import Experiment, ModelChoice
from otprune_lmms.experiments.records import (
    Answered,
    Asked,
    Place,
    records_of,
    samples_of,
    values_of,
)
from otprune_lmms.pruning_config import Cell
from otprune_lmms.scoring import ScoreCache, TaskScore, TaskScorer, shared_captions

logger = logging.getLogger(__name__)


def score_cells(
    experiment: Experiment,
    model: ModelChoice,
    scorers: Mapping[str, TaskScorer],
    answers: Mapping[Cell, Mapping[str, Sequence[Answered]]],
    asked: Mapping[Place, Asked],
    cache: ScoreCache,
    without_java: bool,
    left_out: Collection[tuple[str, int]] = (),
) -> tuple[list[dict[str, Any]], list[dict[str, list[Any]]]]:
    """Return records and samples of one model: each cell's answers to each task, scored once.

    Args:
        experiment: whose records they are.
        model: what answered.
        scorers: the tasks, by name.
        answers: by cell and task.
        asked: what was asked at each place.
        cache: scores of answers that were scored before.
        without_java: mark caption metrics as missing.
        left_out: task and number of documents that are scored under no cell.

    Raises:
        ScoringError: a task's own code could not score the answers.
        JavaError: a Java tool did not do its work.
    """
    scores: dict[str, dict[Cell, TaskScore]] = {}
    answers = {cell: _without(many, scorers, left_out) for cell, many in answers.items()}
    out = {name: {doc_id for task, doc_id in left_out if task == name} for name in scorers}
    with shared_captions() as tools:
        captions = [scorer for scorer in scorers.values() if scorer.needs_java]
        if captions and not without_java and not _all_scored(cache, captions, answers, out):
            tools.meteor.start()
        # Captions last: METEOR takes seconds to start, which it does meanwhile.
        for name, scorer in sorted(scorers.items(), key=lambda item: item[1].needs_java):
            values = {cell: values_of(answers[cell][name]) for cell in answers}
            keys = {cell: cache.key(scorer, given, out[name]) for cell, given in values.items()}
            found = {cell: cache.find(key) for cell, key in keys.items()}
            new = [values[cell] for cell, score in found.items() if score is None]
            logger.info("%s: scoring %s, %s of %s new", model.name, name, len(new), len(values))
            if new and not without_java:
                scorer.prime(tools, new)
            scores[name] = {
                cell: score
                or scorer.score(
                    values[cell], without=out[name], without_java=without_java, tools=tools
                )
                for cell, score in found.items()
            }
            for cell, score in scores[name].items():
                if found[cell] is None and not score.missing:
                    cache.keep(keys[cell], score)
    records: list[dict[str, Any]] = []
    samples: list[dict[str, list[Any]]] = []
    for name in scorers:
        for cell, score in scores[name].items():
            given = answers[cell][name]
            records += records_of(experiment, model, cell, score, given)
            samples.append(samples_of(model, cell, score, given, asked))
    return records, samples


def _all_scored(
    cache: ScoreCache,
    scorers: Sequence[TaskScorer],
    answers: Mapping[Cell, Mapping[str, Sequence[Answered]]],
    out: Mapping[str, Collection[int]],
) -> bool:
    return all(
        cache.find(cache.key(scorer, values_of(given[scorer.name]), out[scorer.name])) is not None
        for scorer in scorers
        for given in answers.values()
    )


def _without(
    answers: Mapping[str, Sequence[Answered]],
    tasks: Iterable[str],
    left_out: Collection[tuple[str, int]],
) -> dict[str, list[Answered]]:
    """Return the answers to each task, less those to some documents."""
    return {
        task: [one for one in answers[task] if (task, one[0].doc_id) not in left_out]
        for task in tasks
    }
