"""Score all configs of a model, each set of answers once."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from otprune.cost import DecoderShape
from otprune_lmms.experiments.config import Experiment, ModelChoice
from otprune_lmms.experiments.records import (
    Answered,
    Asked,
    Place,
    records_of,
    samples_of,
    values_of,
)
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.scoring import ScoreCache, TaskScore, TaskScorer, shared_captions

logger = logging.getLogger(__name__)


def score_cells(
    experiment: Experiment,
    model: ModelChoice,
    scorers: Mapping[str, TaskScorer],
    answers: Mapping[PruningConfig, Mapping[str, Sequence[Answered]]],
    asked: Mapping[Place, Asked],
    cache: ScoreCache,
    without_java: bool,
    shape: DecoderShape,
    text_tokens: Mapping[str, float],
    left_out: Collection[tuple[str, int]] = (),
) -> tuple[list[dict[str, Any]], list[dict[str, list[Any]]]]:
    """Return records and samples of one model: each config's answers to each task, scored once.

    Args:
        experiment: whose records they are.
        model: what answered.
        scorers: the tasks, by name.
        answers: by config and task.
        asked: what was asked at each place.
        cache: scores of answers that were scored before.
        without_java: mark caption metrics as missing.
        shape: the model's decoder.
        text_tokens: mean text tokens of a prompt, by task.
        left_out: task and number of documents that are scored under no config.

    Raises:
        ScoringError: a task's own code could not score the answers.
        JavaError: a Java tool did not do its work.
    """
    scores: dict[str, dict[PruningConfig, TaskScore]] = {}
    answers = {config: _without(many, scorers, left_out) for config, many in answers.items()}
    out = {name: {doc_id for task, doc_id in left_out if task == name} for name in scorers}
    with shared_captions() as tools:
        captions = [scorer for scorer in scorers.values() if scorer.needs_java]
        if captions and not without_java and not _all_scored(cache, captions, answers, out):
            tools.meteor.start()
        # Captions last: METEOR takes seconds to start, which it does meanwhile.
        for name, scorer in sorted(scorers.items(), key=lambda item: item[1].needs_java):
            values = {config: values_of(answers[config][name]) for config in answers}
            keys = {config: cache.key(scorer, given, out[name]) for config, given in values.items()}
            found = {config: cache.find(key) for config, key in keys.items()}
            new = [values[config] for config, score in found.items() if score is None]
            logger.info("%s: scoring %s, %s of %s new", model.name, name, len(new), len(values))
            if new and not without_java:
                scorer.prime(tools, new)
            scores[name] = {
                config: score
                or scorer.score(
                    values[config], without=out[name], without_java=without_java, tools=tools
                )
                for config, score in found.items()
            }
            for config, score in scores[name].items():
                if found[config] is None and not score.missing:
                    cache.keep(keys[config], score)
    records: list[dict[str, Any]] = []
    samples: list[dict[str, list[Any]]] = []
    for name in scorers:
        for config, score in scores[name].items():
            given = answers[config][name]
            records += records_of(
                experiment, model, config, score, given, shape, text_tokens.get(name, 0.0)
            )
            samples.append(samples_of(model, config, score, given, asked))
    return records, samples


def _all_scored(
    cache: ScoreCache,
    scorers: Sequence[TaskScorer],
    answers: Mapping[PruningConfig, Mapping[str, Sequence[Answered]]],
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
