"""Verifies a results folder: its answers are scored again and compared with its records."""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from otprune_lmms.experiments.config import Experiment, task_folder
from otprune_lmms.experiments.plan import Source
from otprune_lmms.images import guarded_images
from otprune_lmms.journal import Journal
from otprune_lmms.json_files import first_fault
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import MANIFEST, read_content
from otprune_lmms.results.records import RECORDS, read_records
from otprune_lmms.results.samples import read_samples
from otprune_lmms.scoring import TaskScorer, java, load_tasks, shared_captions
from otprune_lmms.scoring.captions import CaptionTools

_NEAR = 1e-9
"""Largest relative difference at which two computations of one number agree."""

_SCORED = ("model", "setting", "task")


@dataclass
class Verdict:
    """The result of verifying a results folder.

    Attributes:
        differences: one sentence for each; empty if records and answers agree.
        checked: number of compared items, by kind.
        skipped: what could not be compared, and why.
    """

    differences: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        """Add to the number of compared items of a kind."""
        self.checked[what] = self.checked.get(what, 0) + number


@guarded_images()
def verify_answers(
    folder: Path, config: Path | None = None, journal: Path | None = None
) -> Verdict:
    """Score the stored answers again and compare with the records.

    Args:
        folder: the results folder.
        config: folder of the experiment's file, where a relative suite starts; None for ``folder``.
        journal: journal to compare the stored answers with; None for none.

    Raises:
        ValueError: no results folder of this format, or its tasks' data is missing.
        JournalError: there is no such journal.
    """
    content = read_content(folder, "data", "configs")
    experiment = _experiment(folder, content)
    samples: Frame = read_samples(folder)
    records: Frame = read_records(folder / RECORDS)
    verdict = Verdict()
    if journal is not None:
        _against_journal(content, samples, Journal(journal, readonly=True), verdict)
    _scores(experiment, content, samples, records, config or folder, verdict)
    return verdict


def experiment_of(folder: Path, config: Path | None, limit: int) -> Source:
    """Return the experiment of a results folder, with at most so many documents of each task.

    Args:
        folder: the results folder.
        config: folder of the experiment's file, where relative folders start; None for ``folder``.
        limit: documents of each task.

    Raises:
        ValueError: no results folder of this format.
    """
    experiment = _experiment(folder, read_content(folder))
    tasks = [choice.model_copy(update={"limit": None}) for choice in experiment.tasks]
    fewer = experiment.model_copy(update={"limit": limit, "tasks": tasks})
    return Source(fewer, config or folder)


def _experiment(folder: Path, content: Mapping[str, Any]) -> Experiment:
    try:
        return Experiment.model_validate_json(json.dumps(content["experiment"]))
    except ValidationError as error:
        path = folder / MANIFEST
        raise ValueError(f"{path}: no experiment of this version: {first_fault(error)}") from None


def _against_journal(
    content: Mapping[str, Any], samples: Frame, journal: Journal, verdict: Verdict
) -> None:
    """Compare each stored answer with the journal's."""
    # Manifests of earlier versions have no other key than the fingerprint.
    keys = {
        one["setting"]: one.get("answer_key", one.get("fingerprint"))
        for one in content["configs"]
        if "setting" in one
    }
    columns = zip(
        *(samples[name] for name in ("setting", "task", "doc_id", "requests", "answers")),
        strict=True,
    )
    for config, task, doc_id, requests, answers in columns:
        for request, answer in zip(requests, answers, strict=True):
            where = f"{config}, document {doc_id} of {task}"
            key = keys.get(config)
            record = None if key is None else journal.find((key, request))
            if record is None:
                verdict.differences.append(f"{where}: not in the journal")
            elif _written(record) != answer:
                verdict.differences.append(f"{where}: the journal has another answer")
            verdict.count("answers found in the journal")


def _written(record: Any) -> str:
    """Return an answer as samples hold it."""
    if record.text is not None:
        return record.text
    return json.dumps([float(record.loss or 0.0), bool(record.greedy)])


def _scores(
    experiment: Experiment,
    content: Mapping[str, Any],
    samples: Frame,
    records: Frame,
    config: Path,
    verdict: Verdict,
) -> None:
    """Score all stored answers and compare with the records."""
    limits = experiment.task_limits()
    files = task_folder(experiment, config)
    tasks = load_tasks(list(limits), files, experiment.data_revisions)
    known: dict[Any, Frame] = dict(iter(records.groupby(list(_SCORED), sort=False)))
    with shared_captions() as tools:
        for name, limit in limits.items():
            scorer = TaskScorer(tasks[name], name, limit)
            if scorer.fingerprint != content["data"].get(name, {}).get("documents sha256"):
                verdict.differences.append(f"{name}: its documents have changed since the run")
                continue
            if scorer.needs_java and java() is None:
                verdict.skipped.append(f"{name}: caption metrics need Java")
                continue
            own = samples[samples["task"] == name]
            out = {one.get("doc_id") for one in content.get("failed", ()) if one["task"] == name}
            parts: list[tuple[Any, Frame]] = list(own.groupby(["model", "setting"], sort=False))
            scorer.prime(tools, [_answers(part) for _, part in parts])
            for (model, config), part in parts:
                stored = known.get((model, config, name), records.iloc[:0])
                for difference in _rescored(scorer, part, stored, tools, out):
                    verdict.differences.append(f"{model}, {config}, {name}: {difference}")
                verdict.count("scores", len(stored))


def _answers(part: Frame) -> dict[int, tuple[Any, ...]]:
    return {
        int(doc_id): tuple(_answer_value(answer) for answer in answers)
        for doc_id, answers in zip(part["doc_id"], part["answers"], strict=True)
    }


def _answer_value(answer: str) -> Any:
    """Return an answer as the task's code takes it; loglikelihoods are stored as JSON."""
    if answer.startswith("["):
        try:
            loss, greedy = json.loads(answer)
        except (ValueError, TypeError):
            return answer
        if isinstance(loss, float) and isinstance(greedy, bool):
            return loss, greedy
    return answer


def _rescored(
    scorer: TaskScorer,
    part: Frame,
    stored: Frame,
    tools: CaptionTools,
    left_out: Collection[int],
) -> Iterator[str]:
    """Yield how the scores of one config differ from what is stored."""
    if stored["missing"].notna().any():
        yield "the stored run could not score it; run it again"
        return
    score = scorer.score(_answers(part), without=left_out, tools=tools)
    before = dict(zip(stored["metric"], stored["value"], strict=True))
    for metric in before.keys() | score.metrics.keys():
        own, other = score.metrics.get(metric), before.get(metric)
        if own is None or other is None or not math.isclose(own, other, rel_tol=_NEAR):
            yield f"{metric} is {own}, stored is {other}"
    values = {sample.doc_id: sample.value for sample in score.samples}
    wrong = [
        doc_id
        for doc_id, value in zip(part["doc_id"], part["value"], strict=True)
        if not _same(values.get(int(doc_id)), value)
    ]
    if wrong:
        yield f"shares of documents {', '.join(map(str, wrong[:5]))} differ"


def _same(own: float | None, stored: float) -> bool:
    if own is None or math.isnan(own):
        return math.isnan(stored)
    return math.isclose(own, stored, rel_tol=_NEAR, abs_tol=1e-12)
