"""Scores an experiment: makes its records and samples from answers in the journal."""

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from otprune_lmms.documents import Failure
from otprune_lmms.engine import Answer, answer_of
from otprune_lmms.experiments.answering import AnsweredModel, RequestSummary, mean_text_tokens
from otprune_lmms.experiments.config import Experiment, task_folder
from otprune_lmms.experiments.left_out import left_out, log_left_out
from otprune_lmms.experiments.option_questions import option_columns
from otprune_lmms.experiments.outcome import Outcome
from otprune_lmms.experiments.plan import Source, TaskData
from otprune_lmms.experiments.records import (
    PlacedAnswer,
    RecordContext,
    answer_values,
    records_of,
    samples_of,
)
from otprune_lmms.experiments.tasks import TaskSet
from otprune_lmms.journal import Journal, JournalError, RequestPlace
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.scoring import (
    JavaError,
    ScoreCache,
    TaskScore,
    TaskScorer,
    data_files,
    fingerprint,
    java,
    shared_captions,
)

logger = logging.getLogger(__name__)

AnswersByTask = Mapping[PruningConfig, Mapping[str, Sequence[PlacedAnswer]]]
"""Answers of one model, by config and task."""


def scorers_of(source: Source, tasks: TaskSet) -> dict[str, TaskScorer]:
    """Return the scorer of each task of an experiment; ``tasks`` must have loaded them.

    Raises:
        ValueError: see `TaskScorer`; a document that cannot be scored, if the experiment is strict.
    """
    experiment, folder = source
    files = task_folder(experiment, folder)
    limits = experiment.task_limits()
    scorers = {name: tasks.scorer(name, files, limit) for name, limit in limits.items()}
    for name, scorer in scorers.items():
        if experiment.strict and scorer.failed:
            doc_id, reason = min(scorer.failed.items())
            raise ValueError(f"{Failure(name, doc_id, scorer.split, reason).name}: {reason}")
    return scorers


def lacks_java(experiment: Experiment, scorers: Mapping[str, TaskScorer]) -> bool:
    """Return whether caption metrics must be left out because there is no Java, and log it.

    Raises:
        JavaError: so they are, and the experiment requires them.
    """
    captions = [name for name, scorer in scorers.items() if scorer.needs_java]
    if not captions or java() is not None:
        return False
    if experiment.java == "required":
        raise JavaError(
            f"{', '.join(captions)} need Java for their metrics (tokeniser, METEOR), and there is "
            "none on the PATH; install a Java runtime, or leave these metrics out with "
            "--without-java (java: optional)"
        )
    logger.warning(
        "no Java: captions of %s are generated, their metrics are left out", ", ".join(captions)
    )
    return True


def score_experiment(
    source: Source,
    models: Sequence[AnsweredModel],
    scorers: Mapping[str, TaskScorer],
    journal: Journal,
) -> Outcome:
    """Return the records and samples of an experiment whose answers are in a journal.

    Args:
        source: the experiment.
        models: all models of the sweep, after they have answered.
        scorers: scorers of the experiment's tasks, by name.
        journal: has the answers; its folder also has the cache of scores.

    Raises:
        ScoringError: a task's own code could not score the answers.
        JavaError: a Java tool failed, or Java is missing and required.
        JournalError: an answer is not in the journal.
        ValueError: too many documents that could not be used.
    """
    experiment, folder = source
    files = task_folder(experiment, folder)
    outcome = Outcome()
    for name, scorer in scorers.items():
        outcome.data[name] = {"documents": len(scorer), "documents sha256": scorer.fingerprint}
        found = data_files(name, files)
        outcome.data[name] |= {"files sha256": fingerprint(found)} if found else {}
    by_source = {one.plan.source: one for one in models}
    own = [(choice, by_source[choice.source(folder)]) for choice in experiment.models]
    data = {name: TaskData(files, experiment.seed_video, name) for name in scorers}
    failures = left_out(
        [
            failure
            for _, answered in own
            for name, scorer in scorers.items()
            for failure in answered.failed.get(data[name], ())
            if failure.doc_id in scorer.doc_ids
        ],
        scorers,
    )
    log_left_out(failures, scorers)
    outcome.failed = [one.plain() for one in failures]
    excluded = {(one.task, one.doc_id) for one in failures}
    cache = ScoreCache(journal.folder / "scores")
    without_java = lacks_java(experiment, scorers)
    for choice, answered in own:
        requests = {
            name: {
                place: one
                for place, one in answered.requests.get(data[name], {}).items()
                if place.doc_id in scorer.doc_ids and (name, place.doc_id) not in excluded
            }
            for name, scorer in scorers.items()
        }
        outcome.models[choice.name] = answered.fingerprint
        outcome.hub |= answered.hub
        outcome.shapes[choice.name] = dataclasses.asdict(answered.shape)
        texts = {name: mean_text_tokens(places) for name, places in requests.items() if places}
        outcome.text_tokens[choice.name] = texts
        outcome.counts[choice.name] = answered.counts.plain()
        context = RecordContext(experiment, choice.name, answered.shape, texts)
        answers = _answers(experiment.pruning.configs(), requests, journal)
        scores = _scores(context, scorers, answers, excluded, cache, without_java)
        for name in scorers:
            for config, score in scores[name].items():
                given = answers[config][name]
                outcome.records += records_of(context, config, score, given)
                options = option_columns(
                    {
                        doc_id: one
                        for doc_id, one in answered.options.get(data[name], {}).items()
                        if doc_id in scorers[name].doc_ids and (name, doc_id) not in excluded
                    },
                    _finder(journal, config, name),
                )
                outcome.samples.append(
                    samples_of(context, config, score, given, requests[name], options)
                )
    return outcome


def _answers(
    configs: Iterable[PruningConfig],
    requests: Mapping[str, Mapping[RequestPlace, RequestSummary]],
    journal: Journal,
) -> AnswersByTask:
    """Return the journal's answers to all requests."""
    found: dict[PruningConfig, dict[str, list[PlacedAnswer]]] = {}
    for config in configs:
        name = config.answer_key
        found[config] = {
            task: [
                (place, answer_of(_record(journal, name, task, place.doc_id, one.digest)))
                for place, one in places.items()
            ]
            for task, places in requests.items()
        }
    return found


def _finder(journal: Journal, config: PruningConfig, task: str) -> Callable[[int, str], Answer]:
    """Return a function that finds the journal's answer to a request of a task's document."""
    key = config.answer_key
    return lambda doc_id, digest: answer_of(_record(journal, key, task, doc_id, digest))


def _record(journal: Journal, config: str, task: str, doc_id: int, digest: str) -> Any:
    record = journal.find((config, digest))
    if record is None:
        raise JournalError(
            f"journal {journal.folder} has no answer to document {doc_id} of {task} "
            f"under pruning config {config[:12]}: answer it again"
        )
    return record


def _scores(
    context: RecordContext,
    scorers: Mapping[str, TaskScorer],
    answers: AnswersByTask,
    excluded: Collection[tuple[str, int]],
    cache: ScoreCache,
    without_java: bool,
) -> dict[str, dict[PruningConfig, TaskScore]]:
    """Return the score of each config on each task; scores in the cache are not computed again."""
    scores: dict[str, dict[PruningConfig, TaskScore]] = {}
    out = {name: {doc_id for task, doc_id in excluded if task == name} for name in scorers}
    values_by_task = {
        name: {config: answer_values(given[name]) for config, given in answers.items()}
        for name in scorers
    }
    keys = {
        name: {config: cache.key(scorer, given, out[name]) for config, given in by_config.items()}
        for (name, scorer), by_config in zip(scorers.items(), values_by_task.values(), strict=True)
    }
    stored = cache.find(key for by_config in keys.values() for key in by_config.values())
    with shared_captions() as tools:
        captions = [name for name, scorer in scorers.items() if scorer.needs_java]
        all_scored = all(key in stored for name in captions for key in keys[name].values())
        if captions and not without_java and not all_scored:
            tools.meteor.start()
        # Captions last: METEOR takes some seconds to start, and starts meanwhile.
        for name, scorer in sorted(scorers.items(), key=lambda item: item[1].needs_java):
            known = {config: stored.get(key) for config, key in keys[name].items()}
            new = [values_by_task[name][config] for config, score in known.items() if score is None]
            logger.info("%s: scoring %s, %s of %s new", context.model, name, len(new), len(known))
            if new and not without_java:
                scorer.prime(tools, new)
            scores[name] = {
                config: score
                or scorer.score(
                    values_by_task[name][config],
                    without=out[name],
                    without_java=without_java,
                    tools=tools,
                )
                for config, score in known.items()
            }
            for config, score in scores[name].items():
                if known[config] is None and not score.missing:
                    cache.keep(keys[name][config], score)
    return scores
