"""Makes the lines of ``records.csv`` and ``samples.parquet`` from answers and scores."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otprune.cost import DecoderShape
from otprune_lmms.engine import Answer
from otprune_lmms.experiments.answering import RequestSummary
from otprune_lmms.experiments.config import Experiment
from otprune_lmms.experiments.option_questions import NO_OPTIONS, ColumnsByDocument
from otprune_lmms.experiments.prefill import PromptTokens, mean_prefill
from otprune_lmms.images import image_cluster
from otprune_lmms.journal import RequestPlace
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.samples import SCHEMA
from otprune_lmms.scoring import Sample, TaskScore

PlacedAnswer = tuple[RequestPlace, Answer]

AnswerValues = dict[int, tuple[Any, ...]]
"""Values of the answers to one task under one config, by document, in the requests' order."""


def answer_values(answers: Sequence[PlacedAnswer]) -> AnswerValues:
    """Return the values of answers by document, in the order of each document's requests."""
    found: dict[int, dict[tuple[int, int], Any]] = defaultdict(dict)
    for place, answer in answers:
        found[place.doc_id][place.number, place.repeat] = answer.value
    return {
        doc_id: tuple(value for _, value in sorted(many.items())) for doc_id, many in found.items()
    }


@dataclass(frozen=True, slots=True)
class RecordContext:
    """Values that all records of one model in one experiment share.

    Attributes:
        experiment: the experiment.
        model: name of the model.
        shape: sizes of its decoder.
        text_tokens: mean text tokens of a prompt, by task.
    """

    experiment: Experiment
    model: str
    shape: DecoderShape
    text_tokens: Mapping[str, float]


def records_of(
    context: RecordContext, config: PruningConfig, score: TaskScore, answers: Sequence[PlacedAnswer]
) -> list[dict[str, Any]]:
    """Return one record for each metric of a config on a task, by `results.records.COLUMNS`."""
    common = {
        "experiment": context.experiment.name,
        "suite": context.experiment.suite,
        "model": context.model,
        **config.columns(),
        "task": score.task,
        "documents": score.documents,
        "kept_tokens": _mean([n for _, answer in answers for n in answer.kept]),
        "visual_tokens": _mean([n for _, answer in answers for n in answer.candidates]),
        **_prefill(context, config, score.task, answers),
        "truncated": len({place.doc_id for place, answer in answers if answer.truncated}),
    }
    found = [(m, value, None) for m, value in score.metrics.items()]
    found += [(m, None, reason) for m, reason in score.missing.items()]
    return [common | {"metric": m, "value": v, "missing": reason} for m, v, reason in found]


def _prefill(
    context: RecordContext, config: PruningConfig, task: str, answers: Sequence[PlacedAnswer]
) -> dict[str, Any]:
    """Return the prefill of a mean prompt, as columns; only documents' first requests count."""
    first: dict[int, PlacedAnswer] = {}
    for place, answer in answers:
        before, _ = first.setdefault(place.doc_id, (place, answer))
        if (place.number, place.repeat) < (before.number, before.repeat):
            first[place.doc_id] = (place, answer)
    prompts = [PromptTokens(answer.kept, answer.candidates) for _, answer in first.values()]
    text = context.text_tokens.get(task, 0.0)
    found = mean_prefill(config, context.shape, prompts, text)
    costs = {f"multiply_adds_{name}": value for name, value in found.multiply_adds.items()}
    return {
        "layer_tokens": found.layer_tokens,
        "cached_tokens": found.cached_tokens,
        **costs,
    }


def samples_of(
    context: RecordContext,
    config: PruningConfig,
    score: TaskScore,
    answers: Sequence[PlacedAnswer],
    requests: Mapping[RequestPlace, RequestSummary],
    options: ColumnsByDocument | None = None,
) -> dict[str, list[Any]]:
    """Return one sample for each document of a config on a task: `SCHEMA`, and ``seconds``.

    Args:
        context: values that all records of a model share.
        config: the config.
        score: of the task.
        answers: to all requests of its documents.
        requests: these requests.
        options: columns about the options of documents, see `option_columns`.
    """
    given: dict[int, list[PlacedAnswer]] = defaultdict(list)
    for place, answer in answers:
        given[place.doc_id].append((place, answer))
    columns: dict[str, list[Any]] = {name: [] for name in (*SCHEMA.names, "seconds")}
    setting = {"model": context.model, **config.columns(), "task": score.task}
    for sample in _first_filter(score):
        many = sorted(given[sample.doc_id], key=lambda one: (one[0].number, one[0].repeat))
        chosen = (options or {}).get(sample.doc_id, NO_OPTIONS)
        line = {**setting, **_line(sample, many, requests), **chosen}
        for name, column in columns.items():
            column.append(line[name])
    return columns


def _line(
    sample: Sample,
    many: Sequence[PlacedAnswer],
    requests: Mapping[RequestPlace, RequestSummary],
) -> dict[str, Any]:
    values = [answer.value for _, answer in many]
    first = requests[many[0][0]]
    ends = [answer.unfinished for _, answer in many if answer.unfinished is not None]
    return {
        "doc_id": sample.doc_id,
        "cluster": image_cluster(first.images) or f"{many[0][0].task} {sample.doc_id}",
        "prompt": first.prompt,
        "target": sample.target,
        "requests": [requests[place].digest for place, _ in many],
        "answers": [value if isinstance(value, str) else json.dumps(value) for value in values],
        "answer": sample.answer,
        "value": sample.value,
        "detail": json.dumps(dict(sample.detail)),
        "kept": sum(n for _, answer in many[:1] for n in answer.kept),
        "candidates": sum(n for _, answer in many[:1] for n in answer.candidates),
        "new_tokens": sum(answer.new_tokens for _, answer in many),
        "seconds": sum(answer.seconds for _, answer in many),
        "truncated": max((answer.truncated for _, answer in many), default=0),
        "unfinished": max(ends) if ends else None,
    }


def _first_filter(score: TaskScore) -> Iterator[Sample]:
    """Yield each document's first sample; a task with several filters has several of each."""
    seen: set[int] = set()
    for sample in score.samples:
        if sample.doc_id not in seen:
            seen.add(sample.doc_id)
            yield sample


def _mean(numbers: Sequence[int]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
