"""Score stored answers with lmms-eval's own task code.

Filters, `process_results`, aggregation and their bookkeeping (`TaskOutput`) are lmms-eval's; only
the loop over documents is here. lmms-eval's evaluator is not used: it reads the launcher's
environment, so that one process of several could not score alone, and it decodes every image again
for every pruning config. A test compares the numbers with those of `simple_evaluate`.
"""

import hashlib
import inspect
import io
import json
import math
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
)
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

from lmms_eval.evaluator_utils import TaskOutput

from otprune_lmms.benchmarks import (
    DocumentResults,
    all_benchmarks,
    benchmark,
    with_group_members,
)
from otprune_lmms.benchmarks.shares import Noted, ResultsByDocument, TaskAggregation
from otprune_lmms.documents import BROKEN, build_requests, reason_of
from otprune_lmms.scoring.captions import CaptionTools, java, one_line
from otprune_lmms.scoring.references import process_results, unusable_references
from otprune_lmms.sources import function_hash, modules_of, source_hash

AnswerValue = str | tuple[float, bool]
"""An answer as tasks take it (`engine.Answer.value`): the text, or (loss in nats, greedy)."""

_Instances = Mapping[int, Sequence[Any]]
"""lmms-eval's instances by document."""

_SIDE_METRICS = ("submission",)
"""Metrics whose aggregation only writes a file (and fails on some characters)."""


_SCORING = (
    *("output_type", "process_results", "doc_to_target", "doc_to_choice", "metric_list"),
    *("filter_list", "score_key", "reasoning_tags", "auto_strip_thinking"),
)
"""Entries of a task's file that decide how its answers are scored."""


class ScoringError(RuntimeError):
    """A task's own code could not score the answers."""


@dataclass(frozen=True)
class Sample:
    """One document's answer and its scores.

    Attributes:
        doc_id: number of the document in its split.
        target: the expected answer as text.
        answer: the scored text, after the task's filters; a caption has no line breaks.
        scores: the document's value of each metric that has one for each document.
        value: the document's share of the headline metric (`benchmarks.Share`); None without one.
        detail: the share's ``detail``.
    """

    doc_id: int
    target: str
    answer: str
    scores: Mapping[str, float]
    value: float | None = None
    detail: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskScore:
    """Scores of one pruning config on one benchmark.

    Attributes:
        task: the benchmark's name.
        documents: number of scored documents.
        metrics: lmms-eval's value of each metric; a filter other than "none" follows the name after
            a comma.
        samples: one for each document and filter, filter by filter.
        missing: the reason for each metric that could not be computed.
    """

    task: str
    documents: int
    metrics: Mapping[str, float]
    samples: tuple[Sample, ...]
    missing: Mapping[str, str]


class TaskScorer:
    """Scores answers to one benchmark, under any number of pruning configs.

    Args:
        task: lmms-eval's task object (`load_tasks`).
        name: the benchmark's name; without a record, the task's id.
        limit: documents from the start that are scored; None for all.

    Attributes:
        benchmark: the benchmark's record.
        failed: the reason for each document whose requests the task's code cannot build, or whose
            reference cannot be scored (`unusable_references`).

    Raises:
        ValueError: no documents, none that can be scored, or the limit cuts a group of documents
            that are scored as one.
    """

    def __init__(self, task: Any, name: str, limit: int | None = None) -> None:
        self.task = task
        self.name = name
        self.benchmark = benchmark(name, list(task.aggregation()))
        with redirect_stderr(io.StringIO()):
            self.failed = build_requests(task, limit)
        self._all = list(task.instances)
        self._instances: dict[int, list[Any]] = defaultdict(list)
        for instance in self._all:
            self._instances[instance.doc_id].append(instance)
        for instances in self._instances.values():
            instances.sort(key=lambda instance: instance.idx)
        self._ids = sorted({*self._instances, *self.failed})
        with _isolated(task):
            numbers = {doc_id: len(many) for doc_id, many in self._instances.items()}
            record = all_benchmarks().get(name)
            self.failed |= unusable_references(task, record, self._documents(numbers), numbers)
        self._groups: dict[int, Any] = {}
        if self.benchmark.groups is not None:
            self._groups = self.benchmark.groups.of(self._documents(self._ids))
            self.benchmark.groups.check(name, self._groups)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def doc_ids(self) -> frozenset[int]:
        """Numbers of the documents, `failed` ones among them."""
        return frozenset(self._ids)

    @property
    def split(self) -> str:
        """The documents' split of the task's data set."""
        config = self.task.config
        return config.test_split if self.task.has_test_docs() else config.validation_split

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, as hex, over the scored documents without their images."""
        total = hashlib.sha256()
        for doc_id, document in self._documents(self._ids):
            text = json.dumps([doc_id, document], sort_keys=True, default=str)
            total.update(hashlib.sha256(text.encode()).digest())
        return total.hexdigest()

    @cached_property
    def code(self) -> str:
        """SHA-256, as hex, over the code that scores: the task's own, the record's, and ours."""
        record, config = self.benchmark, self.task.config
        functions = [record.shares, record.aggregation.terms]
        functions += [] if record.notes is None else [record.notes]
        functions += [] if record.groups is None else [record.groups.key]
        modules = [__name__, java.__module__, type(record).__module__, *modules_of(functions)]
        packages = {one.partition(".")[0] for one in modules}
        settings = {name: getattr(config, name, None) for name in _SCORING}
        given = [*_callables(settings), *self.task.aggregation().values()]
        text = json.dumps([record.metric, settings], sort_keys=True, default=_name_of)
        parts = (text, source_hash(modules, packages), function_hash(given))
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @cached_property
    def needs_java(self) -> bool:
        """Whether the task's metrics run Java."""
        functions = self.task.aggregation().values()
        return any("PTBTokenizer" in getattr(f, "__globals__", {}) for f in functions)

    def score(
        self,
        answers: Mapping[int, Sequence[AnswerValue]],
        *,
        without: Collection[int] = (),
        without_java: bool = False,
        tools: CaptionTools | None = None,
    ) -> TaskScore:
        """Return the scores of one pruning config.

        Some tasks guess at random what an unreadable answer meant; these guesses start from the
        same seed at each call.

        Args:
            answers: the answers to each document's requests, in the requests' order.
            without: documents to leave out, with those that `left_out` adds; to be the same for all
                configs that are compared.
            without_java: mark caption metrics as missing instead of computing them.
            tools: tools of the `shared_captions` around this call; without them captions have no
                shares.

        Raises:
            ValueError: a document has too few or too many answers, or all documents are left out.
            ScoringError: a metric has no value, or the task's code failed.
        """
        out = self.left_out(without)
        scored = {doc_id: many for doc_id, many in self._instances.items() if doc_id not in out}
        self._fill(scored, answers)
        output = TaskOutput.from_taskdict(self.name, self.task)
        missing: dict[str, str] = {}
        with _isolated(self.task):
            samples, results = self._process(scored, output)
            if without_java and self.needs_java:
                missing = {metric: "needs Java" for metric in self.task.aggregation()}
            else:
                with self._noting() as noted:
                    self._aggregate(output)
                samples = self._with_shares(samples, results, noted, tools)
        return TaskScore(self.name, len(scored), self._metrics(output), tuple(samples), missing)

    def left_out(self, documents: Collection[int] = ()) -> frozenset[int]:
        """Return all documents that are not scored if some have no answer.

        That is these, `failed` ones, and documents that are scored as one with any of them.
        """
        return with_group_members(self._groups, {*documents, *self.failed})

    @property
    def _headline(self) -> str:
        """The headline metric without the name of a filter behind it."""
        return self.benchmark.metric.partition(",")[0]

    def _noting(self) -> AbstractContextManager[Noted]:
        """Return a context in which the aggregation's values of single groups are noted."""
        aggregation = self._aggregation(self._headline)
        if self.benchmark.notes is None or aggregation is None:
            return nullcontext({})
        return self.benchmark.notes(aggregation)

    def _with_shares(
        self,
        samples: Sequence[Sample],
        results: ResultsByDocument,
        noted: Noted,
        tools: CaptionTools | None,
    ) -> list[Sample]:
        """Return samples with their shares of the headline metric."""
        given = DocumentResults(
            self._headline,
            results,
            self._groups,
            self._aggregation(self._headline),
            noted,
            {} if tools is None else tools.cider,
        )
        found = self.benchmark.shares(given)
        return [
            replace(one, value=found[one.doc_id].value, detail=found[one.doc_id].detail)
            for one in samples
        ]

    def _aggregation(self, metric: str) -> TaskAggregation | None:
        function = self.task.aggregation().get(metric)
        if function is None or "args" not in inspect.signature(function).parameters:
            return function
        return partial(function, args=self.task.args)

    def prime(
        self, tools: CaptionTools, many: Sequence[Mapping[int, Sequence[AnswerValue]]]
    ) -> None:
        """Tokenise the captions of several pruning configs at once, to save time."""
        if not self.needs_java or java() is None:
            return
        texts = []
        for answers in many:
            given = [answers[doc_id][0] for doc_id in self._instances if doc_id in answers]
            lines = [one_line(str(answer)) for answer in given]
            texts.append("\n".join(lines))
        tools.tokenizer.prime(texts)

    def _documents(self, ids: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        documents = self.task.eval_docs_no_media
        for doc_id in ids:
            # Read again each time: the code of some tasks changes the document.
            yield doc_id, documents[doc_id]

    def _fill(self, scored: _Instances, answers: Mapping[int, Sequence[AnswerValue]]) -> None:
        """Put the answers into the instances of the documents that are scored."""
        if not scored:
            raise ValueError(f"task {self.name}: all of its {len(self)} documents are left out")
        for doc_id, instances in scored.items():
            given = answers.get(doc_id, ())
            if len(given) != len(instances):
                raise ValueError(
                    f"task {self.name}: document {doc_id} needs {len(instances)} answers, "
                    f"got {len(given)}"
                )
            for instance, answer in zip(instances, given, strict=True):
                caption = self.needs_java and isinstance(answer, str)
                instance.resps = [one_line(str(answer)) if caption else answer]
                instance.filtered_resps = {}

    def _process(
        self, scored: _Instances, output: TaskOutput
    ) -> tuple[list[Sample], ResultsByDocument]:
        """Return samples, and what `process_results` returns under the task's first filter."""
        # The task may hold other instances: those of one process, which were built later.
        self.task._instances = [one for one in self._all if one.doc_id in scored]
        self.task.apply_filters()
        first = next(iter(scored.values()))[0]
        samples = []
        results: dict[int, Mapping[str, Any]] = {}
        for filter_name in first.filtered_resps:
            for doc_id, document in self._documents(scored):
                target = str(self.task.doc_to_target(document))
                found = [i.filtered_resps[filter_name] for i in scored[doc_id]]
                result = self._results(doc_id, document, found)
                for metric, value in result.items():
                    if metric not in _SIDE_METRICS:
                        output.sample_metrics[(metric, filter_name)].append(value)
                text = found[0] if len(found) == 1 else json.dumps(found)
                samples.append(Sample(doc_id, target, str(text), _numbers(result)))
                results.setdefault(doc_id, result)
        return samples, results

    def _results(self, doc_id: int, document: dict[str, Any], found: Sequence[Any]) -> Any:
        try:
            return process_results(self.task, document, found)
        except BROKEN as error:
            raise ScoringError(
                f"lmms-eval's code for task {self.name} failed on document {doc_id} with the "
                f"answer {str(found[0])[:80]!r}: {reason_of(error)}"
            ) from error

    def _aggregate(self, output: TaskOutput) -> None:
        try:
            output.calculate_aggregate_metric(bootstrap_iters=0)
        except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ScoringError(
                f"lmms-eval's code for task {self.name} failed: {type(error).__name__}: {error}"
            ) from error

    def _metrics(self, output: TaskOutput) -> dict[str, float]:
        metrics = {}
        for (metric, filter_name), _ in output.sample_metrics.items():
            key = f"{metric},{filter_name}"
            if key not in output.agg_metrics:
                continue
            value: Any = output.agg_metrics[key]
            if value is None or not math.isfinite(value):
                raise ScoringError(f"metric {metric} of task {self.name} has no value: {value}")
            metrics[metric if filter_name == "none" else key] = float(value)
        return metrics


def _numbers(result: Mapping[str, Any]) -> dict[str, float]:
    numbers = {}
    for metric, value in result.items():
        inner = value.get("score") if isinstance(value, dict) else value
        if isinstance(inner, (bool, int, float)):
            numbers[metric] = float(inner)
    return numbers


def _callables(value: Any) -> Iterator[Callable[..., Any]]:
    """Yield the functions among the entries of a task's file."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _callables(one)
    elif callable(value):
        yield value


def _name_of(value: Any) -> str:
    """Return what stands for a function in JSON."""
    return str(getattr(value, "__qualname__", type(value).__name__))


@contextmanager
def _isolated(task: Any) -> Iterator[None]:
    """In this context a task's code has no side effects and is deterministic.

    Its files go to a temporary folder, its prints are discarded, its random guesses start from the
    same seed.
    """
    arguments, random_state = getattr(task, "args", None), random.getstate()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        task.args = SimpleNamespace(output_path=folder)
        random.seed(0)
        try:
            yield
        finally:
            task.args = arguments
            random.setstate(random_state)
