"""From answers and scores to tidy records."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import tokenizer_image_token
from otprune.cost import DecoderShape
from otprune_lmms.engine import Answer, Answers, Request
from otprune_lmms.engine.prompts import prompt_of
from otprune_lmms.experiments.config import Experiment, ModelChoice
from otprune_lmms.experiments.prefill import PromptTokens, mean_prefill
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.samples import SCHEMA
from otprune_lmms.scoring import Sample, TaskScore


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer belongs: fields of its request."""

    task: str
    doc_id: int
    index: int
    repeat: int


def place_of(request: Request) -> Place:
    """Return the place of a request."""
    return Place(request.task, request.doc_id, request.index, request.repeat)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked at a place.

    Attributes:
        prompt: the task's text, without the conversation template.
        images: hashes of the images' content.
        text_tokens: of the prompt, the conversation template's included.
        digest: what the journal finds the answer by.
    """

    prompt: str
    images: tuple[str, ...]
    text_tokens: int = 0
    digest: str = ""


Answered = tuple[Place, Answer]

Values = dict[int, tuple[Any, ...]]
"""Answers of one config to one task, by document, in the order of its requests."""


def values_of(answers: Sequence[Answered]) -> Values:
    """Return the answers by document, in the order of each document's requests."""
    found: dict[int, dict[tuple[int, int], Any]] = defaultdict(dict)
    for place, answer in answers:
        found[place.doc_id][place.index, place.repeat] = answer.value
    return {
        doc_id: tuple(value for _, value in sorted(many.items())) for doc_id, many in found.items()
    }


def records_of(
    experiment: Experiment,
    model: ModelChoice,
    config: PruningConfig,
    score: TaskScore,
    answers: Sequence[Answered],
    shape: DecoderShape,
    text: float,
) -> list[dict[str, Any]]:
    """Return one record for each metric of a config on a task, by `results.records.COLUMNS`.

    Args:
        experiment: whose records they are.
        model: what answered.
        config: the setting.
        score: of the answers.
        answers: to the task.
        shape: the model's decoder.
        text: mean text tokens of the task's prompts.
    """
    common = {
        "experiment": experiment.name,
        "suite": experiment.suite,
        "model": model.name,
        **config.columns(),
        "task": score.task,
        "documents": score.documents,
        "kept_tokens": _mean([n for _, answer in answers for n in answer.kept]),
        "visual_tokens": _mean([n for _, answer in answers for n in answer.candidates]),
        **_prefill(config, shape, answers, text),
    }
    found = [(m, value, None) for m, value in score.metrics.items()]
    found += [(m, None, reason) for m, reason in score.missing.items()]
    return [common | {"metric": m, "value": v, "missing": reason} for m, v, reason in found]


def _prefill(
    config: PruningConfig, shape: DecoderShape, answers: Sequence[Answered], text: float
) -> dict[str, Any]:
    """Return what a mean prompt's prefill costs, as columns; of a document its first request."""
    first: dict[int, tuple[Place, Answer]] = {}
    for place, answer in answers:
        before = first.setdefault(place.doc_id, (place, answer))
        if (place.index, place.repeat) < (before[0].index, before[0].repeat):
            first[place.doc_id] = (place, answer)
    prompts = [PromptTokens(answer.kept, answer.candidates) for _, answer in first.values()]
    found = mean_prefill(config, shape, prompts, text)
    costs = {f"multiply_adds_{name}": value for name, value in found.multiply_adds.items()}
    return {"layer_tokens": found.layer_tokens, **costs}


def samples_of(
    model: ModelChoice,
    config: PruningConfig,
    score: TaskScore,
    answers: Sequence[Answered],
    asked: Mapping[Place, Asked],
) -> dict[str, list[Any]]:
    """Return one sample for each document of a config on a task, by columns of `SCHEMA`."""
    given: dict[int, list[Answered]] = defaultdict(list)
    for place, answer in answers:
        given[place.doc_id].append((place, answer))
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    setting = {"model": model.name, **config.columns(), "task": score.task}
    for sample in _first_filter(score):
        many = sorted(given[sample.doc_id], key=lambda one: (one[0].index, one[0].repeat))
        line = setting | _line(sample, many, asked)
        for name, column in columns.items():
            column.append(line[name])
    return columns


def _line(sample: Sample, many: Sequence[Answered], asked: Mapping[Place, Asked]) -> dict[str, Any]:
    values = [answer.value for _, answer in many]
    first = asked[many[0][0]]
    return {
        "doc_id": sample.doc_id,
        "cluster": cluster_of(first.images) or f"{many[0][0].task} {sample.doc_id}",
        "prompt": first.prompt,
        "target": sample.target,
        "requests": [asked[place].digest for place, _ in many],
        "answers": [value if isinstance(value, str) else json.dumps(value) for value in values],
        "answer": sample.answer,
        "value": sample.value,
        "detail": json.dumps(dict(sample.detail)),
        "kept": sum(n for _, answer in many[:1] for n in answer.kept),
        "candidates": sum(n for _, answer in many[:1] for n in answer.candidates),
        "new_tokens": sum(answer.new_tokens for _, answer in many),
        "seconds": sum(answer.seconds for _, answer in many),
    }


def cluster_of(images: Sequence[str]) -> str:
    """Return the name that documents with these images share, "" without any."""
    return hashlib.sha256(" ".join(images).encode()).hexdigest()[:16] if images else ""


def _first_filter(score: TaskScore) -> Iterator[Sample]:
    """Return each document's first sample: a task with several filters has several."""
    seen: set[int] = set()
    for sample in score.samples:
        if sample.doc_id not in seen:
            seen.add(sample.doc_id)
            yield sample


def asked_of(
    requests: Sequence[Request], answers: Answers, tokenizer: Any, template: str
) -> list[tuple[Place, Asked]]:
    """Return what was asked at each place."""
    found = []
    for request in requests:
        images = answers.images(request)
        ids = tokenizer_image_token(prompt_of(request, len(images), template), tokenizer)
        words = sum(1 for one in ids if one != IMAGE_TOKEN_INDEX)
        asked = Asked(request.context, images, words, answers.question(request))
        found.append((place_of(request), asked))
    return found


def text_tokens(asked: Mapping[Place, Asked]) -> dict[str, float]:
    """Return the mean text tokens of a task's prompts, by task."""
    found: dict[str, list[int]] = defaultdict(list)
    for place, one in asked.items():
        found[place.task].append(one.text_tokens)
    return {task: round(sum(many) / len(many), 2) for task, many in found.items()}


def _mean(numbers: Sequence[int]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
