"""Diagnostics of a finished experiment: its models, images and pruning configs."""

import logging
from pathlib import Path

import pandas as pd

from otprune_lmms.experiments.answering import load_for_process, process_state
from otprune_lmms.experiments.config import task_folder
from otprune_lmms.experiments.diagnostics.diagnose import (
    DiagnosticsOptions,
    diagnose,
    is_measurable,
)
from otprune_lmms.experiments.plan import Source
from otprune_lmms.experiments.tasks import TaskSet
from otprune_lmms.results.diagnostics import diagnostics_frame
from otprune_lmms.results.manifest import read_content
from otprune_lmms.results.samples import read_samples

logger = logging.getLogger(__name__)


def diagnose_experiment(
    source: Source,
    results: Path,
    options: DiagnosticsOptions | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Return the diagnostics of an experiment that has a results folder.

    Args:
        source: the experiment.
        results: its results folder; only documents with samples are used.
        options: what is measured, on how many images.
        progress: whether to show progress.

    Raises:
        ValueError: no samples in the folder; a checkpoint is missing or differs from that of the
            answers; no config is measurable.
        ImportError: the exact distance is wanted and POT is not installed.
    """
    experiment, folder = source
    samples = read_samples(results, ("task", "doc_id"))
    configs = experiment.pruning.configs()
    if not any(map(is_measurable, configs)):
        raise ValueError(f"{experiment.name} has no setting that prunes before the language model")
    answered = set(zip(samples["task"], samples["doc_id"], strict=True))
    files, limits = task_folder(experiment, folder), experiment.task_limits()
    tasks = TaskSet(process_state(), experiment.data_revisions)
    tasks.load(list(limits), files)
    requests = [
        request
        for name, limit in limits.items()
        for request in tasks.requests(name, files, limit, [])
        if (request.task, request.doc_id) in answered
    ]
    lines = []
    for choice in experiment.models:
        model = load_for_process(choice.source(folder))
        _check_same(results, choice.name, model.fingerprint)
        lines += diagnose(
            model,
            requests,
            configs,
            model_name=choice.name,
            options=options,
            seed_video=experiment.seed_video,
            progress=progress,
        )
        del model
    return diagnostics_frame(lines)


def _check_same(results: Path, name: str, fingerprint: str) -> None:
    """Raise ``ValueError`` if a model is not the one that gave the answers."""
    known = read_content(results).get("models", {}).get(name)
    if known is not None and known != fingerprint:
        raise ValueError(
            f"{name} has changed since {results} was made: run the experiment again first"
        )
