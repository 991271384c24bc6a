"""Measure an experiment's models under its settings, on documents of its own tasks."""

import contextlib
import dataclasses
import gc
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from otprune_lmms.engine import Request, requests_of
from otprune_lmms.experiments.config import Experiment, task_folder
from otprune_lmms.experiments.cost.measuring import measure
from otprune_lmms.experiments.cost.settings import Settings
from otprune_lmms.experiments.run import load
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.costs import Cost
from otprune_lmms.scoring import load_tasks

logger = logging.getLogger(__name__)


def measure_experiment(
    experiment: Experiment,
    config: Path,
    *,
    samples: int,
    batch_sizes: Sequence[int] = (1,),
    settings: Settings | None = None,
    progress: bool = True,
) -> list[Cost]:
    """Return the cost of each model, batch size and setting.

    Of seeds of one setting the first is measured: they differ in nothing that costs.

    Args:
        experiment: models, tasks and settings.
        config: folder of its file.
        samples: documents of each task, from the start; rounded up to whole batches.
        batch_sizes: samples in one call.
        settings: the rest of how it is measured; batch size, conversation and videos are those of
            the arguments and of the experiment.
        progress: whether to show how far it is.

    Raises:
        ValueError: no samples or batch size, an unknown task, a checkpoint that is not there or
            does not fit; no task writes answers.
        BenchError: a batch that does not fit into memory.
        RequestError: broken images.
    """
    if samples < 1 or not batch_sizes:
        raise ValueError(
            f"samples must be >= 1 and batch_sizes not empty, got {samples} and {batch_sizes}"
        )
    common = Settings() if settings is None else settings
    requests = {
        count: requests_for(experiment, config, count)
        for count in {-(-samples // size) * size for size in batch_sizes}
    }
    found: list[Cost] = []
    for model in experiment.models:
        loaded = load(model, config)
        for size in batch_sizes:
            found += measure(
                loaded,
                requests[-(-samples // size) * size],
                distinct(experiment.pruning.configs()),
                model_name=model.name,
                settings=dataclasses.replace(
                    common,
                    batch_size=size,
                    conversation=model.conversation,
                    seed_video=experiment.seed_video,
                ),
                progress=progress,
            )
        del loaded
        gc.collect()
        torch.cuda.empty_cache()
    return found


def requests_for(experiment: Experiment, config: Path, samples: int) -> list[Request]:
    """Return the requests of the first documents of each task that writes answers.

    Raises:
        ValueError: an unknown task, or none that writes answers.
    """
    names = list(experiment.task_limits())
    tasks = load_tasks(names, task_folder(experiment, config))
    found: list[Request] = []
    # lmms-eval shows a bar for each task.
    with contextlib.redirect_stderr(io.StringIO()):
        for name in names:
            own = requests_of(tasks[name], name, limit=samples)
            written = [request for request in own if request.kind == "generate"]
            if not written:
                logger.warning("%s writes no answers: not measured", name)
            found += written
    if not found:
        raise ValueError(f"none of the tasks {', '.join(names)} writes answers to measure")
    return found


def distinct(configs: Sequence[PruningConfig]) -> list[PruningConfig]:
    """Return the first config of each row of the table."""
    return list({config.row: config for config in reversed(configs)}.values())[::-1]
