"""Thresholds under which a method with adaptive counts keeps its budget on average.

They are chosen on the images of an experiment's documents, by what picks add alone: no answer is
made. So that a comparison is fair, these must not be the documents that it is made on.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otprune.adaptive import AdaptiveSelector, threshold_for
from otprune.pruning.choose import Candidates, gains_of
from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.engine import Request
from otprune_lmms.engine.prepare import RequestPreparer, image_number
from otprune_lmms.engine.progress import Progress
from otprune_lmms.experiments.answering import load_for_process, process_state
from otprune_lmms.experiments.config import task_folder
from otprune_lmms.experiments.diagnostics.diagnose import drawn_images
from otprune_lmms.experiments.plan import Source
from otprune_lmms.experiments.tasks import TaskSet
from otprune_lmms.images import guarded_images
from otprune_lmms.models.protocol import VisionLanguageModel
from otprune_lmms.pruning_config import PruningConfig


@dataclass(frozen=True, slots=True)
class ChosenThreshold:
    """The threshold of one setting.

    Attributes:
        model: name of the model.
        setting: label of the setting with fixed counts.
        threshold: six significant digits, so that it can be written down.
        images: on how many images it was chosen.
        budget: mean count that the setting asks for.
        counts: the counts under the threshold: mean, then lowest, quartiles, highest.
    """

    model: str
    setting: str
    threshold: float
    images: int
    budget: float
    counts: tuple[float, ...]

    def plain(self) -> dict[str, Any]:
        """Return the values by name, for JSON."""
        return dataclasses.asdict(self)


def thresholds_of_experiment(
    source: Source, images: int | None = None, progress: bool = True
) -> list[ChosenThreshold]:
    """Return a threshold for each model and each setting of an experiment that can have one.

    Args:
        source: the experiment; its settings with fixed counts, or with thresholds to be replaced.
        images: documents with distinct images of each task, drawn with a fixed seed; None for all.
        progress: whether to show progress.

    Raises:
        ValueError: no setting can have a threshold; a checkpoint is missing.
    """
    experiment, folder = source
    configs = [config for config in experiment.pruning.configs() if _adaptive(config) is not None]
    if not configs:
        raise ValueError(
            f"{experiment.name} has no setting whose counts can differ between images: it takes a "
            "method that has the setting adaptive, before the language model, without match and "
            "compat"
        )
    files, limits = task_folder(experiment, folder), experiment.task_limits()
    tasks = TaskSet(process_state(), experiment.data_revisions)
    tasks.load(list(limits), files)
    requests = [
        request
        for name, limit in limits.items()
        for request in tasks.requests(name, files, limit, [])
    ]
    found = []
    for choice in experiment.models:
        model = load_for_process(choice.source(folder))
        preparer = RequestPreparer(model, "", experiment.seed_video)
        found += thresholds_of(model, preparer, requests, configs, choice.name, images, progress)
        del model
    return found


@torch.inference_mode()
@guarded_images()
def thresholds_of(
    model: VisionLanguageModel,
    preparer: RequestPreparer,
    requests: Sequence[Request],
    configs: Sequence[PruningConfig],
    name: str,
    images: int | None = None,
    progress: bool = False,
) -> list[ChosenThreshold]:
    """Return a threshold for each setting that can have one; see `thresholds_of_experiment`.

    An image that several documents share counts once.
    """
    methods = [_known(config) for config in configs]
    needs = frozenset().union(*(method.needs for method in methods))
    # By key, so that each image is encoded once.
    drawn = {one.key: one for one in drawn_images(preparer, requests, images)}
    gains: list[list[Tensor]] = [[] for _ in configs]
    budgets: list[list[int]] = [[] for _ in configs]
    with Progress(f"{name}: what picks add", len(drawn), progress) as bar:
        for key, one in drawn.items():
            image = preparer.images(one.prepared.request)[one.image]
            (tokens,) = model.encode([model.preprocess(image, key[1])], needs)
            for place, (config, method) in enumerate(zip(configs, methods, strict=True)):
                asked = _candidates(config, tokens, image_number(key[0]), model)
                (own,) = gains_of(method, [asked], config.keep_newlines)
                gains[place].append(own.gains.cpu())
                budgets[place].append(asked.budget)
            bar.advance(1)
    return [
        _chosen(name, config, own, wanted)
        for config, own, wanted in zip(configs, gains, budgets, strict=True)
    ]


def _chosen(
    name: str, config: PruningConfig, gains: Sequence[Tensor], budgets: Sequence[int]
) -> ChosenThreshold:
    budget = float(np.mean(budgets))
    threshold = float(f"{threshold_for(gains, budget):.6g}")
    counts = [max(1, int((one >= threshold).sum())) for one in gains]
    spread = np.quantile(counts, (0, 0.25, 0.5, 0.75, 1))
    shown = (float(np.mean(counts)), *spread.tolist())
    return ChosenThreshold(name, config.label, threshold, len(gains), budget, shown)


def _candidates(
    config: PruningConfig, image: ImageTokens, image_id: int, model: VisionLanguageModel
) -> Candidates:
    """Return what the engine would let a setting's method choose among."""
    pruning, n = config.pruning, len(image)
    if pruning is None:
        raise ValueError(f"{config.label} prunes nothing")
    if pruning.keep_newlines and image.newline is not None:
        n -= int(image.newline.sum())
    known = dataclasses.replace(image.signals, image_id=image_id)
    budget = pruning.plan(n, model.shape)[0]
    return Candidates(image, torch.arange(len(image)), image.tokens, budget, known)


def _adaptive(config: PruningConfig) -> AdaptiveSelector | None:
    """Return the method of a setting that can have a threshold; None of any other."""
    pruning = config.pruning
    if pruning is None or pruning.inside or pruning.compat or pruning.target is not None:
        return None
    return pruning.before if isinstance(pruning.before, AdaptiveSelector) else None


def _known(config: PruningConfig) -> AdaptiveSelector:
    method = _adaptive(config)
    if method is None:
        raise ValueError(f"{config.label} has the same count for every image")
    return method
