"""Runs experiments: all requests are answered, then each experiment is scored from the journal.

There is one path for one experiment or many, one process or several: answers in the journal are not
made again, a model is loaded once for all experiments that have it and for the measurements with
it, and every experiment is scored from the journal's answers.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from otprune_lmms.documents import DocumentKey, Failure
from otprune_lmms.experiments.answering import (
    AnswerOptions,
    answer_models,
    process_state,
)
from otprune_lmms.experiments.config import task_folder
from otprune_lmms.experiments.diagnostics.diagnose import (
    DiagnosticsOptions,
    diagnose,
    is_measurable,
)
from otprune_lmms.experiments.kept_image import first_kept_image
from otprune_lmms.experiments.left_out import left_out
from otprune_lmms.experiments.outcome import Outcome
from otprune_lmms.experiments.plan import ModelPlan, Source, TaskGroup, data_revisions, plan_of
from otprune_lmms.experiments.scoring import lacks_java, score_experiment, scorers_of
from otprune_lmms.experiments.stopwatch import Stopwatch
from otprune_lmms.experiments.tasks import TaskSet
from otprune_lmms.files import check_writable
from otprune_lmms.images import guarded_images
from otprune_lmms.journal import Journal
from otprune_lmms.models import VisionLanguageModel
from otprune_lmms.results.kept_image import KeptImage
from otprune_lmms.scoring import TaskScorer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnsweredShard:
    """Counts and times of an answered shard.

    Attributes:
        counts: `Counts.plain` of all processes, by model.
        seconds: wall time by phase.
    """

    counts: dict[str, dict[str, Any]]
    seconds: dict[str, float]


@guarded_images()
def answer_shard(sources: Sequence[Source], options: AnswerOptions) -> AnsweredShard:
    """Answer the requests of experiments, or of a shard of them; nothing is scored or written.

    A later `run_experiments` finds the answers of all shards in the journal and scores them.

    Raises:
        ConfigError: see `plan_of`.
        ValueError: see `answer_models`.
        RuntimeError: see `Engine` and `Journal`.
    """
    state = process_state()
    check_writable(options.journal)
    watch, tasks = options.watch, TaskSet(state, data_revisions(sources))
    plans = plan_of(sources, options.shard)
    if not plans:
        logger.warning("shard %s has nothing to answer: fewer configs than shards", options.shard)
    with watch.timed("load data"):
        for plan in plans:
            for group in plan.groups:
                tasks.load([name for name, _ in group.tasks], group.folder)
    _tell(options, tasks, state)
    answered = answer_models(plans, tasks, options)
    for one in answered:
        for failures in one.failed.values():
            for failure in failures:
                logger.warning("%s left out: %s", failure.name, failure.reason)
    counts = {one.plan.model.name: one.counts.plain() for one in answered}
    return AnsweredShard(counts, watch.seconds)


@guarded_images()
def run_experiments(
    sources: Sequence[Source],
    options: AnswerOptions,
    diagnostics: DiagnosticsOptions | None = None,
    folders: Sequence[Path] = (),
) -> list[Outcome] | None:
    """Answer and score experiments; answers in the journal are not made again.

    Every process answers its own documents; the first one scores all of them.

    Args:
        sources: the experiments.
        options: journal, progress, times; no shard.
        diagnostics: what to measure of the kept tokens while a model is loaded; None for nothing.
        folders: folders that results will be written to; checked before anything is loaded.

    Returns:
        The outcome of each experiment; None in every process but the first.

    Raises:
        JavaError: an experiment requires caption metrics, and there is no Java.
        ValueError: an unknown task; data or a checkpoint that is missing or of another kind; a
            document that cannot be used if an experiment is ``strict``, or too many of them.
        OutputError: a folder cannot be written to.
        RuntimeError: see `Engine`, `Journal` and `TaskScorer`.
    """
    state = process_state()
    for folder in (options.journal, *folders):
        check_writable(folder)
    watch, tasks = options.watch, TaskSet(state, data_revisions(sources))
    plans = plan_of(sources)
    scorers: list[dict[str, TaskScorer]] = []
    with watch.timed("load data"):
        for source in sources:
            experiment, folder = source
            tasks.load(list(experiment.task_limits()), task_folder(experiment, folder))
            scorers.append(scorers_of(source, tasks))
    _tell(options, tasks, state)
    for source, own in zip(sources, scorers, strict=True):
        lacks_java(source.experiment, own)
    extras = [_Measurements(source, tasks, diagnostics, options.progress) for source in sources]

    def review(group: TaskGroup, failed: Sequence[Failure]) -> set[DocumentKey]:
        """Return the documents that no experiment scores; raise if an experiment lacks too many."""
        out: set[DocumentKey] = set()
        scored: set[DocumentKey] = set()
        for source, own in zip(sources, scorers, strict=True):
            if (task_folder(*source), source.experiment.seed_video) == group.data:
                known = [one for one in failed if one.task in own]
                known = [one for one in known if one.doc_id in own[one.task].doc_ids]
                gone = {(one.task, one.doc_id) for one in left_out(known, own)}
                everything = {(task, doc_id) for task in own for doc_id in own[task].doc_ids}
                out |= gone
                scored |= everything - gone
        return out - scored

    def with_model(plan: ModelPlan, model: VisionLanguageModel) -> None:
        if state.is_main_process:
            for one in extras:
                one.collect(plan, model, watch)

    answered = answer_models(plans, tasks, options, review, with_model)
    if not state.is_main_process:
        return None
    outcomes = []
    with watch.timed("score"), Journal(options.journal, readonly=True) as journal:
        for source, own, extra in zip(sources, scorers, extras, strict=True):
            outcome = score_experiment(source, answered, own, journal)
            outcome.diagnostics, outcome.kept_image = extra.diagnostics, extra.kept_image
            outcomes.append(outcome)
    for outcome, (experiment, folder) in zip(outcomes, sources, strict=True):
        outcome.seconds = dict(watch.seconds)
        names = list(experiment.task_limits())
        outcome.hub |= tasks.commits(names, task_folder(experiment, folder))
    return outcomes


def _tell(options: AnswerOptions, tasks: TaskSet, state: PartialState) -> None:
    if options.loaded is not None and state.is_main_process:
        options.loaded(tasks.sizes())


class _Measurements:
    """Measurements of one experiment that need its models loaded: diagnostics and kept patches."""

    def __init__(
        self,
        source: Source,
        tasks: TaskSet,
        options: DiagnosticsOptions | None,
        progress: bool,
    ) -> None:
        self.source, self.tasks, self.progress = source, tasks, progress
        self.options = options
        self.diagnostics: list[dict[str, Any]] | None = None
        self.kept_image: KeptImage | None = None

    def collect(self, plan: ModelPlan, model: VisionLanguageModel, watch: Stopwatch) -> None:
        """Measure with a loaded model, if it is one of the experiment's."""
        experiment, folder = self.source
        choices = [one for one in experiment.models if one.source(folder) == plan.source]
        configs = experiment.pruning.configs()
        measured = self.options is not None and any(map(is_measurable, configs))
        if not choices or not (measured or experiment.picture):
            return
        files = task_folder(experiment, folder)
        requests = [
            request
            for name, limit in experiment.task_limits().items()
            for request in self.tasks.requests(name, files, limit, [])
        ]
        for choice in choices:
            if self.options is not None and measured:
                with watch.timed("measure kept tokens"):
                    self.diagnostics = [
                        *(self.diagnostics or []),
                        *diagnose(
                            model,
                            requests,
                            configs,
                            model_name=choice.name,
                            options=self.options,
                            seed_video=experiment.seed_video,
                            progress=self.progress,
                        ),
                    ]
            if experiment.picture and self.kept_image is None:
                with watch.timed("picture"):
                    self.kept_image = first_kept_image(model, requests, configs)
