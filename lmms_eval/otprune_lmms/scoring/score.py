"""Score stored answers with lmms-eval's own task code.

Filters, `process_results`, aggregation and their bookkeeping (`TaskOutput`) are lmms-eval's; here
is only the loop over documents. Its evaluator is not called for it: that reads the launcher's
environment, so that one process of several could not score alone, and it decodes every image
again for every setting. A test holds the numbers to those of `simple_evaluate`.
"""

import hashlib
import inspect
import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from lmms_eval.evaluator_utils import TaskOutput

from otprune_lmms.benchmarks import headline
from otprune_lmms.documents import build_requests
from otprune_lmms.scoring.captions import CaptionTools, java
from otprune_lmms.scoring.groups import check_pairs, together, with_company
from otprune_lmms.scoring.isolation import own_corner, seeded
from otprune_lmms.scoring.values import Results, shares

Response = str | tuple[float, bool]
"""What a model answers: a text, or the loss of a continuation and whether it is the greedy one."""

_Asked = Mapping[int, Sequence[Any]]
"""Instances by document."""

_SIDE_METRICS = ("submission",)
"""Metrics whose aggregation has no value, but writes a file (and fails on odd characters)."""


class ScoringError(RuntimeError):
    """A task's own code could not score the answers."""


@dataclass(frozen=True)
class Sample:
    """What the task's code says about one document.

    Attributes:
        doc_id: number of the document in its split.
        target: the expected answer as text.
        answer: what was scored, after the task's filters.
        scores: the document's value for each metric that has one by document.
        value: the document's share of the headline metric (`values.Share`); None without one.
        detail: what the headline metric needs beside it.
    """

    doc_id: int
    target: str
    answer: str
    scores: Mapping[str, float]
    value: float | None = None
    detail: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskScore:
    """Scores of one setting on one task.

    Attributes:
        task: its id.
        documents: how many were scored.
        metrics: value of each metric as lmms-eval aggregates it; a filter other than "none" stands
            behind a comma.
        samples: by document, in their order.
        missing: metrics that could not be computed, with the reason.
    """

    task: str
    documents: int
    metrics: Mapping[str, float]
    samples: tuple[Sample, ...]
    missing: Mapping[str, str]


class TaskScorer:
    """One task, ready to score any number of settings.

    Args:
        task: lmms-eval's task object (`load_tasks`).
        name: its id.
        limit: documents from the start that are scored; None for all.

    Attributes:
        unasked: documents whose requests the task's code cannot build, with the reason.

    Raises:
        ValueError: MME without both questions of an image among the documents; no documents.
    """

    def __init__(self, task: Any, name: str, limit: int | None = None) -> None:
        self.task = task
        self.name = name
        with redirect_stderr(io.StringIO()):
            self.unasked = build_requests(task, limit)
        self._all = list(task.instances)
        self._instances: dict[int, list[Any]] = defaultdict(list)
        for instance in self._all:
            self._instances[instance.doc_id].append(instance)
        for instances in self._instances.values():
            instances.sort(key=lambda instance: instance.idx)
        self._ids = sorted({*self._instances, *self.unasked})
        self._groups = together(name, self._documents(self._ids))
        if name == "mme":
            check_pairs(self._groups)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def doc_ids(self) -> frozenset[int]:
        """Numbers of the documents, those that cannot be asked about among them."""
        return frozenset(self._ids)

    @property
    def split(self) -> str:
        """Split of the task's data set that the documents are of."""
        config = self.task.config
        return config.test_split if self.task.has_test_docs() else config.validation_split

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the documents that are scored, without their images."""
        total = hashlib.sha256()
        for doc_id, document in self._documents(self._ids):
            text = json.dumps([doc_id, document], sort_keys=True, default=str)
            total.update(hashlib.sha256(text.encode()).digest())
        return total.hexdigest()

    @property
    def needs_java(self) -> bool:
        """Whether the task's metrics run Java."""
        functions = self.task.aggregation().values()
        return any("PTBTokenizer" in getattr(f, "__globals__", {}) for f in functions)

    def score(
        self,
        answers: Mapping[int, Sequence[Response]],
        *,
        without: Collection[int] = (),
        without_java: bool = False,
        tools: CaptionTools | None = None,
    ) -> TaskScore:
        """Return the scores of one setting.

        Random guesses in a task's own code (MMMU: unreadable letters) start from the same seed each
        time.

        Args:
            answers: for each document the answers to its requests, in their order.
            without: documents that are left out, and with them `left_out`; for settings to be
                compared the same ones for each.
            without_java: mark caption metrics as missing instead of computing them.
            tools: of the `shared_captions` around this call; without them captions have no shares.

        Raises:
            ValueError: a document lacks an answer, or has too many; all documents are left out.
            ScoringError: a metric has no value, or the task's code failed.
        """
        out = self.left_out(without)
        asked = {doc_id: many for doc_id, many in self._instances.items() if doc_id not in out}
        self._fill(asked, answers)
        output = TaskOutput.from_taskdict(self.name, self.task)
        missing: dict[str, str] = {}
        with own_corner(self.task), seeded():
            samples, results = self._process(asked, output)
            if without_java and self.needs_java:
                missing = {metric: "needs Java" for metric in self.task.aggregation()}
            else:
                self._aggregate(output)
                samples = self._with_shares(samples, results, tools)
        return TaskScore(self.name, len(asked), self._metrics(output), tuple(samples), missing)

    def left_out(self, documents: Collection[int] = ()) -> frozenset[int]:
        """Return the documents that are not scored where some cannot be asked about.

        These, those that are scored as one with them (MME: the other question about the image), and
        `unasked`.
        """
        return with_company(self._groups, {*documents, *self.unasked})

    def _with_shares(
        self, samples: Sequence[Sample], results: Results, tools: CaptionTools | None
    ) -> list[Sample]:
        """Return samples with their shares of the headline metric."""
        metric = headline(self.name, [name for name in self.task.aggregation()]).metric
        captions = None if tools is None else tools.cider
        found = shares(metric, results, self._aggregation(metric), captions)
        return [
            replace(one, value=found[one.doc_id].value, detail=found[one.doc_id].detail)
            for one in samples
        ]

    def _aggregation(self, metric: str) -> Callable[[list[Any]], float] | None:
        function = self.task.aggregation().get(metric)
        if function is None or "args" not in inspect.signature(function).parameters:
            return function
        return partial(function, args=self.task.args)

    def prime(self, tools: CaptionTools, many: Sequence[Mapping[int, Sequence[Response]]]) -> None:
        """Tokenise the captions of several settings in one run; a saving, never a condition."""
        if not self.needs_java or java() is None:
            return
        texts = []
        for answers in many:
            given = [answers[doc_id][0] for doc_id in self._instances if doc_id in answers]
            lines = [str(answer).replace("\n", " ") for answer in given]
            texts.append("\n".join(lines))
        tools.tokenizer.prime(texts)

    def _documents(self, ids: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        documents = self.task.eval_docs_no_media
        for doc_id in ids:
            # Read anew each time: OK-VQA's code changes the document.
            yield doc_id, documents[doc_id]

    def _fill(self, asked: _Asked, answers: Mapping[int, Sequence[Response]]) -> None:
        if not asked:
            raise ValueError(f"task {self.name}: all of its {len(self)} documents are left out")
        for doc_id, instances in asked.items():
            given = answers.get(doc_id, ())
            if len(given) != len(instances):
                raise ValueError(
                    f"task {self.name}: document {doc_id} needs {len(instances)} answers, "
                    f"got {len(given)}"
                )
            for instance, answer in zip(instances, given, strict=True):
                instance.resps = [answer]
                instance.filtered_resps = {}

    def _process(self, asked: _Asked, output: TaskOutput) -> tuple[list[Sample], Results]:
        """Return samples, and what the task's code said of each document under its first filter."""
        # The task holds what was built last, which may be one process's share.
        self.task._instances = [one for one in self._all if one.doc_id in asked]
        self.task.apply_filters()
        first = next(iter(asked.values()))[0]
        samples = []
        said: dict[int, Mapping[str, Any]] = {}
        for filter_name in first.filtered_resps:
            for doc_id, document in self._documents(asked):
                target = str(self.task.doc_to_target(document))
                found = [i.filtered_resps[filter_name] for i in asked[doc_id]]
                result = self.task.process_results(document, found)
                for metric, value in result.items():
                    if metric not in _SIDE_METRICS:
                        output.sample_metrics[(metric, filter_name)].append(value)
                text = found[0] if len(found) == 1 else json.dumps(found)
                samples.append(Sample(doc_id, target, str(text), _numbers(result)))
                said.setdefault(doc_id, result)
        return samples, said

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
