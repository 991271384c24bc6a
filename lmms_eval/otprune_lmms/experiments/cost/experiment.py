"""Measures the cost of an experiment's models and pruning configs, on documents of its tasks."""

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import torch

from otprune_lmms.engine import Request
from otprune_lmms.experiments.answering import load_for_process, process_state
from otprune_lmms.experiments.config import ModelChoice, task_folder
from otprune_lmms.experiments.cost.measuring import BenchError, CostOptions, measure
from otprune_lmms.experiments.plan import Source
from otprune_lmms.experiments.tasks import TaskSet
from otprune_lmms.images import guarded_images
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.costs import MeasuredCost

logger = logging.getLogger(__name__)


@guarded_images()
def measure_experiment(
    source: Source,
    *,
    samples: int,
    batch_sizes: Sequence[int] | None = None,
    options: CostOptions | None = None,
    progress: bool = True,
) -> list[MeasuredCost]:
    """Return the cost of each model, batch size and pruning config.

    Of configs that differ in the seed only the first is measured: their costs are equal.

    Args:
        source: the experiment.
        samples: documents of each task, from the start; rounded up to whole batches.
        batch_sizes: requests in one call of the language model; None for 1 and each model's own of
            the experiment, halved until it fits into memory.
        options: how costs are measured; its batch size and videos are replaced by ``batch_sizes``
            and the experiment's.
        progress: whether to show progress.

    Raises:
        ValueError: no samples or batch size, an unknown task, a checkpoint that is missing or of
            another kind, a model that another process runs, or no task generates answers.
        BenchError: a batch does not fit into memory.
        RequestError: an image cannot be read.
    """
    experiment, folder = source
    if samples < 1 or (batch_sizes is not None and not batch_sizes):
        raise ValueError(
            f"samples must be >= 1 and batch_sizes not empty, got {samples} and {batch_sizes}"
        )
    for choice in experiment.models:
        if choice.backend is not None:
            raise ValueError(
                f"backend must be left out of {choice.name}, got {choice.backend!r}: costs are "
                "measured call by call in this process; scripts/bench_serving.py measures a server"
            )
    common = CostOptions() if options is None else options
    requests = cache(lambda count: requests_for(source, count))
    configs = one_of_each_row(experiment.pruning.configs())
    found: list[MeasuredCost] = []

    def measure_model(choice: ModelChoice) -> None:
        model = load_for_process(choice.source(folder))

        def measured(size: int) -> list[MeasuredCost]:
            return measure(
                model,
                requests(-(-samples // size) * size),
                configs,
                model_name=choice.name,
                options=replace(common, batch_size=size, seed_video=experiment.seed_video),
                progress=progress,
            )

        for size in batch_sizes or dict.fromkeys((1, choice.batch_size)):
            found.extend(measured(size) if batch_sizes else largest_that_fits(measured, size))

    for choice in experiment.models:
        measure_model(choice)
        gc.collect()
        torch.cuda.empty_cache()
    return found


def largest_that_fits(
    measured: Callable[[int], list[MeasuredCost]], size: int
) -> list[MeasuredCost]:
    """Return the costs at a batch size, or at the largest half of it that fits into memory.

    Raises:
        BenchError: not even one sample fits.
    """
    while True:
        try:
            return measured(size)
        except BenchError as error:
            if size == 1:
                raise
            logger.warning("batch size %d: %s; measuring half of it", size, error)
            size //= 2


def requests_for(source: Source, samples: int) -> list[Request]:
    """Return the requests about the first documents of each task that generates answers.

    Raises:
        ValueError: an unknown task, or no task generates answers.
    """
    names = list(source.experiment.task_limits())
    files = task_folder(*source)
    tasks = TaskSet(process_state(), source.experiment.data_revisions)
    tasks.load(names, files)
    found: list[Request] = []
    for name in names:
        own = tasks.requests(name, files, samples, None)
        written = [request for request in own if request.kind == "generate"]
        if not written:
            logger.warning("%s generates no answers: not measured", name)
        found += written
    if not found:
        raise ValueError(f"none of the tasks {', '.join(names)} generates answers to measure")
    return found


def one_of_each_row(configs: Sequence[PruningConfig]) -> list[PruningConfig]:
    """Return the first config of each row of the table."""
    return list({config.row: config for config in reversed(configs)}.values())[::-1]
