"""Diagnose a finished experiment: its model, its images, its configs."""

import contextlib
import gc
import importlib.util
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from otprune_lmms.engine import Request, requests_of
from otprune_lmms.experiments.config import Experiment, ModelChoice, task_folder
from otprune_lmms.experiments.diagnostics.diagnose import diagnose, measurable
from otprune_lmms.experiments.run import load
from otprune_lmms.journal.fingerprint import model_fingerprint
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.diagnostics import frame
from otprune_lmms.results.samples import read_samples
from otprune_lmms.scoring import load_tasks

logger = logging.getLogger(__name__)


def diagnose_experiment(
    experiment: Experiment,
    config: Path,
    folder: Path,
    *,
    images: int | None = 24,
    exact: bool | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Return the diagnostics of an experiment whose results are there.

    Args:
        experiment: what was run.
        config: folder of its file; relative checkpoints and suites start there.
        folder: its results; documents that they do not hold are not looked at.
        images: documents with images of their own of each task; None for all.
        exact: whether to solve the exact transport problem too; None: where POT is installed.
        progress: whether to show how far it is.

    Raises:
        ValueError: no samples in the folder; a checkpoint that is not there, or is not the one
            whose answers the folder holds; no config that can be diagnosed.
        ImportError: ``exact`` without POT.
    """
    samples = read_samples(folder)
    if exact is None:
        exact = importlib.util.find_spec("ot") is not None
        if not exact:
            logger.warning("POT is not installed (otprune[transport]): no exact distances")
    configs = [config for config in experiment.pruning.configs() if config.method is not None]
    if not any(measurable(config) for config in configs):
        raise ValueError(f"{experiment.name} has no config that prunes before the language model")
    requests = _requests(experiment, config, samples)
    rows: list[dict[str, Any]] = []
    for model in experiment.models:
        rows += _of_model(
            experiment, model, config, folder, requests, configs, images, exact, progress
        )
    return frame(rows)


def _of_model(
    experiment: Experiment,
    model: ModelChoice,
    config: Path,
    folder: Path,
    requests: Sequence[Request],
    configs: Sequence[PruningConfig],
    images: int | None,
    exact: bool,
    progress: bool,
) -> list[dict[str, Any]]:
    loaded = load(model, config)
    _check_same(folder, model.name, loaded)
    found = diagnose(
        loaded,
        requests,
        configs,
        model_name=model.name,
        images=images,
        exact=exact,
        conversation=model.conversation,
        seed_video=experiment.seed_video,
        progress=progress,
    )
    del loaded
    gc.collect()
    torch.cuda.empty_cache()
    return found


def _requests(experiment: Experiment, config: Path, samples: pd.DataFrame) -> list[Request]:
    """Return the requests of the documents that were answered."""
    answered = set(zip(samples["task"], samples["doc_id"], strict=True))
    limits = experiment.task_limits()
    tasks = load_tasks(list(limits), task_folder(experiment, config))
    found: list[Request] = []
    # lmms-eval draws bars of its own.
    with contextlib.redirect_stderr(io.StringIO()):
        for name, limit in limits.items():
            found += requests_of(tasks[name], name, limit=limit, failed=[])
    return [request for request in found if (request.task, request.doc_id) in answered]


def _check_same(folder: Path, name: str, loaded: tuple[Any, Any, Any, int]) -> None:
    """Raise ``ValueError`` if a model is not the one that the answers are from."""
    try:
        known = json.loads((folder / "manifest.json").read_text())["models"].get(name)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder / 'manifest.json'} is no manifest of a run: {error}") from error
    tokenizer, model, processor, _ = loaded
    if known is not None and known != model_fingerprint(model, tokenizer, processor):
        raise ValueError(
            f"{name} has changed since {folder} was made: run the experiment again first"
        )
