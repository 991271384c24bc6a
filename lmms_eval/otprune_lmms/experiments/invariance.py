"""Whether answers depend on how they are made: on the batch, the order, a stop, or the processes.

An answer is that of its request under its config, whatever else is asked. Sums in another order
round otherwise, so where two words are nearly as likely the answer may still turn; how near they
were is measured with the same model.
"""

import multiprocessing
import random
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from otprune_lmms.engine import Engine, Request
from otprune_lmms.engine.answers import log_likelihood
from otprune_lmms.experiments.answering import AnswerOptions, load_for_process, process_state
from otprune_lmms.experiments.plan import ModelPlan, Source, TaskGroup, data_revisions, plan_of
from otprune_lmms.experiments.run import answer_shard
from otprune_lmms.experiments.shard import Shard
from otprune_lmms.experiments.tasks import TaskSet
from otprune_lmms.images import guarded_images
from otprune_lmms.journal import Journal, Key, Record
from otprune_lmms.models import VisionLanguageModel
from otprune_lmms.pruning_config import PruningConfig

BATCH = 16
REFERENCE = "one at a time"
PROCESSES = "two processes"
_SEED = 0

Records = dict[Key, Record]


@dataclass(frozen=True, slots=True)
class Difference:
    """An answer that another way of answering changes.

    Attributes:
        model: name of the model.
        config: label of the pruning config.
        task: of the document.
        doc_id: number of the document.
        way: how it was answered otherwise, such as "16 at once".
        answer: one at a time.
        other: in that way.
        margin: log-likelihood of ``answer`` less that of ``other`` in nats, both as continuations
            of the prompt in one batch; None where one of them is empty. Of a loglikelihood the
            difference itself.
    """

    model: str
    config: str
    task: str
    doc_id: int
    way: str
    answer: str
    other: str
    margin: float | None


@dataclass
class Invariance:
    """The result of a check.

    Attributes:
        differences: what changed.
        compared: answers that were compared with those of one request at a time, by way.
    """

    differences: list[Difference] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)


@guarded_images()
def check_invariance(source: Source, *, processes: bool = True) -> Invariance:
    """Answer an experiment's requests in several ways, and compare.

    One at a time is compared with 16 at once, with 16 at once in another order, with a run that
    goes on where one stopped half way, and with two processes that share the documents. All
    requests are answered five times; journals are temporary.

    Args:
        source: the experiment; give its tasks a limit.
        processes: whether two processes are among the ways; each loads the models.

    Raises:
        ValueError: see `answer_models`.
        RuntimeError: see `Engine`.
    """
    found = Invariance()
    tasks = TaskSet(process_state(), data_revisions([source]))
    with tempfile.TemporaryDirectory() as name:
        shared = Path(name) / "processes"
        if processes:
            _in_two_processes(source, shared)
        for plan in plan_of([source]):
            model = load_for_process(plan.source)
            for number, group in enumerate(plan.groups):
                tasks.load([task for task, _ in group.tasks], group.folder)
                requests = tasks.group_requests(group, [], (0, 1))
                folder = Path(name) / f"{plan.model.name}-{number}"
                ways = _Ways(plan, model, group, requests, folder)
                ways.compare(found, shared if processes else None)
            del model
    return found


class _Ways:
    """One model, its requests of one group, and the ways of answering them."""

    def __init__(
        self,
        plan: ModelPlan,
        model: VisionLanguageModel,
        group: TaskGroup,
        requests: Sequence[Request],
        folder: Path,
    ) -> None:
        self.plan, self.model, self.group = plan, model, group
        self.requests, self.folder = list(requests), folder
        self.by_digest: dict[str, Request] = {}

    def compare(self, found: Invariance, processes: Path | None) -> None:
        reference = self._answered(REFERENCE, 1, [self.requests])
        shuffled = random.Random(_SEED).sample(self.requests, len(self.requests))
        half = self.requests[: len(self.requests) // 2]
        ways: dict[str, Callable[[], Records]] = {
            f"{BATCH} at once": lambda: self._answered("batch", BATCH, [self.requests]),
            "another order": lambda: self._answered("order", BATCH, [shuffled]),
            "resumed": lambda: self._answered("resumed", BATCH, [half, self.requests]),
        }
        if processes is not None:
            ways[PROCESSES] = lambda: _records(processes)
        configs = {config.answer_key: config for config in self.group.configs}
        for way, answer in ways.items():
            others = answer()
            for key, record in reference.items():
                other = others.get(key)
                if other is None:
                    raise RuntimeError(
                        f"{way}: no answer to document {record.doc_id} of {record.task}"
                    )
                found.compared[way] = found.compared.get(way, 0) + 1
                if _said(other) != _said(record):
                    config = configs[key.config]
                    found.differences.append(self._difference(config, record, other, way))

    def _answered(self, name: str, batch: int, parts: Sequence[Sequence[Request]]) -> Records:
        """Answer parts of the requests one after another into one journal; return its records."""
        folder = self.folder / name
        for part in parts:
            with Journal(folder, {"experiment": "invariance"}) as journal:
                answers = self._engine(batch, journal).run(part, self.group.configs, lambda _: ())
            for request in answers.requests:
                self.by_digest[answers.prepared(request).digest] = request
        return _records(folder)

    def _engine(self, batch: int, journal: Journal | None) -> Engine:
        return Engine(
            self.model,
            model_name=self.plan.model.name,
            batch_size=batch,
            journal=journal,
            seed_video=self.group.seed_video,
            progress=False,
        )

    def _difference(
        self, config: PruningConfig, record: Record, other: Record, way: str
    ) -> Difference:
        return Difference(
            self.plan.model.name,
            config.label,
            record.task,
            record.doc_id,
            way,
            _said(record),
            _said(other),
            self._margin(config, record, other),
        )

    def _margin(self, config: PruningConfig, record: Record, other: Record) -> float | None:
        if record.loss is not None and other.loss is not None:
            return log_likelihood(record) - log_likelihood(other)
        if not record.text or not other.text:
            return None
        request = self.by_digest[record.request]
        asked = [
            replace(request, kind="loglikelihood", continuation=text)
            for text in (record.text, other.text)
        ]
        answers = self._engine(len(asked), None).run(asked, [config], lambda _: ())
        one, two = (log_likelihood(answers[config, each]) for each in asked)
        return one - two


def _said(record: Record) -> str:
    """Return an answer as text."""
    return record.text if record.text is not None else f"{record.loss!r}, greedy {record.greedy}"


def _records(folder: Path) -> Records:
    with Journal(folder, readonly=True) as journal:
        return {record.key: record for record in journal}


def _in_two_processes(source: Source, journal: Path) -> None:
    """Answer each half of the documents in a process of its own, both at once."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        halves = [pool.submit(_answer_half, source, journal, index) for index in (1, 2)]
        for half in halves:
            half.result()


def _answer_half(source: Source, journal: Path, index: int) -> None:
    options = AnswerOptions(journal, shard=Shard(index, 2), progress=False)
    answer_shard([source], options)


def differences(found: Invariance) -> list[str]:
    """Return a sentence for each answer that changed."""
    return [
        f"{one.model}, {one.config}, document {one.doc_id} of {one.task}: {one.way} answers "
        f"{one.other!r}, {REFERENCE} {one.answer!r}"
        + ("" if one.margin is None else f"; log-likelihoods {one.margin:+.2g} nats apart")
        for one in found.differences
    ]
