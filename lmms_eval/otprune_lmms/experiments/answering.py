"""Answers the requests of experiments into a journal; each model is loaded once."""

import gc
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from otprune.cost import DecoderShape
from otprune_lmms.documents import DocumentKey, Failure
from otprune_lmms.engine import Answers, Counts, Engine, LeaveOut, Request, VisualFolder
from otprune_lmms.engine.answers import added
from otprune_lmms.experiments.option_questions import OptionDigests, OptionQuestion
from otprune_lmms.experiments.plan import ModelPlan, TaskData, TaskGroup, TaskKey, TaskSize
from otprune_lmms.experiments.shard import Shard
from otprune_lmms.experiments.stopwatch import Stopwatch
from otprune_lmms.experiments.tasks import TaskSet
from otprune_lmms.journal import Journal, RequestPlace
from otprune_lmms.models import ModelSource, VisionLanguageModel, load_model

logger = logging.getLogger(__name__)

_PATIENCE = timedelta(days=14)
"""Longest time that a process waits for the others to answer their documents."""

_EVERYTHING = Shard(1, 1)


@dataclass(frozen=True, slots=True)
class RequestSummary:
    """One request to a model, as records and samples need it.

    Attributes:
        prompt: the task's text, without the chat template.
        images: `image_hash` of each image.
        text_tokens: text tokens of the prompt, the chat template's included.
        digest: key of the request in the journal.
    """

    prompt: str
    images: tuple[str, ...]
    text_tokens: int = 0
    digest: str = ""


@dataclass
class AnsweredModel:
    """One model, after it has answered.

    Attributes:
        plan: its requests and pruning configs.
        fingerprint: the model's fingerprint.
        shape: sizes of its decoder.
        hub: commits of the repositories on the hub that it came from.
        requests: its requests by task and place, of all processes.
        options: the options that it was asked about by task and document, of all processes.
        failed: documents that could not be used, by task, of all processes.
        counts: counts of the work, of all processes.
    """

    plan: ModelPlan
    fingerprint: str
    shape: DecoderShape
    hub: Mapping[str, str] = field(default_factory=dict)
    requests: dict[TaskData, dict[RequestPlace, RequestSummary]] = field(default_factory=dict)
    options: dict[TaskData, dict[int, OptionDigests]] = field(default_factory=dict)
    failed: dict[TaskData, list[Failure]] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True)
class AnswerOptions:
    """How a sweep is answered.

    Attributes:
        journal: folder of finished answers.
        shard: the part to answer; None for all.
        progress: whether to show progress.
        eval_time: take each answer's times by phase, see `Engine`.
        watch: adds up the time by phase, and knows how far a run has come that is stopped.
        visual: folder of visual tokens, see `Engine`.
        calibration: ask about each option of a question too, see `experiments.option_questions`.
        loaded: called by the first process with the tasks' sizes, once they are loaded.
    """

    journal: Path
    shard: Shard | None = None
    progress: bool = True
    eval_time: bool = False
    watch: Stopwatch = field(default_factory=Stopwatch)
    visual: VisualFolder | None = None
    calibration: bool = False
    loaded: Callable[[Mapping[TaskKey, TaskSize]], None] | None = None


Review = Callable[[TaskGroup, Sequence[Failure]], Collection[DocumentKey]]
"""Called before the first answer of a group with the documents of all processes that cannot be
used. Returns the documents that need no answer because of them; or raises."""

WithModel = Callable[[ModelPlan, VisionLanguageModel], None]
"""Called with each model after it has answered, before it is freed."""


def process_state() -> PartialState:
    """Return this process's state among those of a launcher (accelerate, torchrun).

    The first call sets up their communication.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def load_for_process(source: ModelSource, local: int = 0) -> VisionLanguageModel:
    """Return a model, on the GPU of this process if there is one and the source names no device.

    Raises:
        ValueError: see `load_model`.
    """
    device = source.device or (f"cuda:{local}" if torch.cuda.is_available() else "cpu")
    return load_model(replace(source, device=device))


def answer_models(
    plans: Sequence[ModelPlan],
    tasks: TaskSet,
    options: AnswerOptions,
    review: Review | None = None,
    with_model: WithModel | None = None,
) -> list[AnsweredModel]:
    """Answer all requests to some models, each request under each config once.

    Answers in the journal are not made again. Processes of a launcher share the documents of a
    shard, and several shards may write into one journal at once. A document that cannot be used is
    left out and reported, or is an error where a plan is ``strict``.

    Args:
        plans: one for each model.
        tasks: the tasks of the plans, loaded.
        options: journal, shard, progress, times.
        review: see `Review`.
        with_model: see `WithModel`.

    Returns:
        Each model with the requests of all processes.

    Raises:
        ValueError: a checkpoint is missing or of another kind, a model does not support a config,
            or ``review`` raises it.
        RuntimeError: see `Engine` and `Journal`.
    """
    state, watch = process_state(), options.watch
    place = (options.shard or _EVERYTHING).place(state.process_index, state.num_processes)
    found = []
    for plan in plans:
        with watch.timed("load model"):
            model = load_for_process(plan.source, state.local_process_index)
        answered = _answer(plan, model, tasks, place, state, options, review)
        if with_model is not None:
            with_model(plan, model)
        found.append(answered)
        del model
        gc.collect()
        torch.cuda.empty_cache()
    return found


def _answer(
    plan: ModelPlan,
    model: VisionLanguageModel,
    tasks: TaskSet,
    place: tuple[int, int],
    state: PartialState,
    options: AnswerOptions,
    review: Review | None,
) -> AnsweredModel:
    watch = options.watch
    counts: list[Counts] = []
    own = AnsweredModel(plan, model.fingerprint, model.shape, model.hub)
    header = {"experiment": " ".join(plan.names), "model": plan.model.name}
    with (
        Journal(options.journal, header) as journal,
        _counted(journal, watch),
        watch.timed("answer"),
    ):
        for group in plan.groups:
            unbuilt: list[Failure] = []
            requests = tasks.group_requests(group, None if plan.strict else unbuilt, place)
            questions = (
                tasks.option_questions(requests, group.folder) if options.calibration else []
            )
            asked = [*requests, *(each for one in questions for each in _flat(one))]
            engine = Engine(
                model,
                model_name=plan.model.name,
                batch_size=plan.model.batch_size,
                workers=plan.workers,
                journal=journal,
                seed_video=group.seed_video,
                progress=options.progress and state.is_main_process,
                eval_time=options.eval_time,
                visual_folder=options.visual,
            )
            logger.info(
                "%s: %s requests of %s tasks under %s settings",
                *(plan.model.name, len(asked), len(group.tasks), len(group.configs)),
            )
            leave_out = None if plan.strict else _reviewed(group, unbuilt, state, review)
            answers = engine.run(asked, group.configs, leave_out)
            for failure in (*unbuilt, *answers.failed):
                data = TaskData(group.folder, group.seed_video, failure.task)
                own.failed.setdefault(data, []).append(failure)
            _note(own, group, answers, model, questions)
            counts.append(answers.counts)
    own.counts = added(counts, in_turn=True)
    if state.num_processes > 1:
        with watch.timed("wait for other processes"):
            own = _gathered(own)
    return own


@contextmanager
def _counted(journal: Journal, watch: Stopwatch) -> Iterator[None]:
    """Add to a watch the answers that come into a journal in this context, however it ends."""
    before = len(journal)
    try:
        yield
    finally:
        watch.answers += len(journal) - before


def _reviewed(
    group: TaskGroup, unbuilt: Sequence[Failure], state: PartialState, review: Review | None
) -> LeaveOut:
    """Return the function that the engine calls with documents that cannot be used."""

    def leave_out(failed: Sequence[Failure]) -> Collection[DocumentKey]:
        if review is None:
            return ()
        mine = [*unbuilt, *failed]
        return review(group, gather_object(mine) if state.num_processes > 1 else mine)

    return leave_out


def _note(
    own: AnsweredModel,
    group: TaskGroup,
    answers: Answers,
    model: VisionLanguageModel,
    questions: Sequence[OptionQuestion],
) -> None:
    """Add a group's requests, by task and place, and those about options, by document."""
    left = {request.key for request in answers.requests}
    about = {each.key for one in questions for each in _flat(one)}
    for one in questions:
        first = one.requests[0][0]
        if first.key in left:
            data = TaskData(group.folder, group.seed_video, first.task)
            own.options.setdefault(data, {})[first.doc_id] = OptionDigests(
                one.options,
                tuple(
                    tuple(answers.prepared(each).digest for each in many) for many in one.requests
                ),
            )
    for request in answers.requests:
        if request.key in about:
            continue
        prepared = answers.prepared(request)
        data = TaskData(group.folder, group.seed_video, request.task)
        place = RequestPlace(request.task, request.doc_id, request.index, request.repeat)
        own.requests.setdefault(data, {})[place] = RequestSummary(
            request.context,
            prepared.images,
            model.text_tokens(prepared.prompt),
            prepared.digest,
        )


def _flat(question: OptionQuestion) -> list[Request]:
    return [each for many in question.requests for each in many]


def _gathered(own: AnsweredModel) -> AnsweredModel:
    """Return a model with the requests of all processes, in every process."""
    everyone: list[AnsweredModel] = gather_object([own])
    requests: dict[TaskData, dict[RequestPlace, RequestSummary]] = defaultdict(dict)
    options: dict[TaskData, dict[int, OptionDigests]] = defaultdict(dict)
    failed: dict[TaskData, list[Failure]] = defaultdict(list)
    for one in everyone:
        for data, documents in one.options.items():
            options[data].update(documents)
        for data, places in one.requests.items():
            requests[data].update(places)
        for data, failures in one.failed.items():
            failed[data] += failures
    counts = added([one.counts for one in everyone], in_turn=False)
    return replace(
        own,
        requests=dict(requests),
        options=dict(options),
        failed=dict(failed),
        counts=counts,
    )


def mean_text_tokens(requests: Mapping[RequestPlace, RequestSummary]) -> float:
    """Return the mean text tokens of some requests, to two decimals; 0 for none."""
    counts = [one.text_tokens for one in requests.values()]
    return round(sum(counts) / len(counts), 2) if counts else 0.0
