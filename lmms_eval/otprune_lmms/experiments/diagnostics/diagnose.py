"""Measures which tokens pruning configs keep of images, and how far they are from all tokens."""

import dataclasses
import importlib.util
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otprune import Merger, Selector
from otprune.pruning.choose import Candidates, choose
from otprune.pruning.image_tokens import ImageTokens
from otprune.signals import TEXT_SIGNALS
from otprune_lmms.documents import SeedVideo
from otprune_lmms.engine import PreparedRequest, Request, RequestError
from otprune_lmms.engine.prepare import RequestPreparer, image_number
from otprune_lmms.engine.progress import Progress
from otprune_lmms.engine.visual_store import ImageKey, keys_of
from otprune_lmms.experiments.diagnostics.measures import FullSet, Measures
from otprune_lmms.images import guarded_images, image_cluster
from otprune_lmms.models.protocol import VisionLanguageModel
from otprune_lmms.pruning_config import PruningConfig

logger = logging.getLogger(__name__)

_DRAW_SEED = 0
"""Seed of the draw of documents."""


@dataclass(frozen=True, slots=True)
class DiagnosticsOptions:
    """What is measured of the kept tokens.

    Attributes:
        images: number of documents with distinct images of each task; None for all.
        exact: whether to solve the exact transport problem, which needs POT; None: if POT is
            installed.

    Raises:
        ValueError: images below 1.
    """

    images: int | None = 24
    exact: bool | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.images is not None and self.images < 1:
            raise ValueError(f"images must be at least 1, got {self.images}")

    @property
    def solves_exact(self) -> bool:
        """Whether the exact problem is solved; logs it once where POT is missing."""
        if self.exact is not None:
            return self.exact
        installed = importlib.util.find_spec("ot") is not None
        if not installed:
            logger.warning("POT is not installed (otprune[transport]): no exact distances")
        return installed


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """An image of a document that was drawn.

    Attributes:
        prepared: the document's request.
        image: which of its images.
    """

    prepared: PreparedRequest
    image: int

    @property
    def key(self) -> ImageKey:
        """Key of the encoded image."""
        return keys_of(self.prepared)[self.image]

    def columns(self) -> dict[str, Any]:
        """Return the image's columns of `results.diagnostics`."""
        request = self.prepared.request
        return {
            "cluster": image_cluster(self.prepared.images),
            "task": request.task,
            "doc_id": request.doc_id,
            "image": self.image,
        }


@torch.inference_mode()
@guarded_images()
def diagnose(
    model: VisionLanguageModel,
    requests: Sequence[Request],
    configs: Sequence[PruningConfig],
    *,
    model_name: str,
    options: DiagnosticsOptions | None = None,
    seed_video: SeedVideo = "first_frame",
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Return one line (`results.diagnostics.COLUMNS`) for each config and image of some documents.

    Each image is encoded once; each config's method gets its tokens as from the engine, one image
    at a time. Documents are drawn from each task with a fixed seed, no two with the same images.
    The unpruned model is left out; so are configs that are not measurable, with a line in the log.
    A document whose images cannot be read is skipped and logged.

    Args:
        model: encodes the images.
        requests: requests of all tasks.
        configs: pruning configs.
        model_name: the model's name in the lines.
        options: what is measured, on how many images.
        seed_video: see `Engine`.
        progress: whether to show progress.

    Raises:
        ValueError: the model does not support a config.
        ImportError: the exact distance is wanted and POT is not installed.
    """
    options = DiagnosticsOptions() if options is None else options
    chosen = [
        config for config in configs if config.method is not None and _measurable_or_logged(config)
    ]
    preparer = RequestPreparer(model, "", seed_video)
    places: dict[ImageKey, list[DrawnImage]] = defaultdict(list)
    for drawn in drawn_images(preparer, requests, options.images) if chosen else ():
        places[drawn.key].append(drawn)
    meter = KeptTokensMeter(model, chosen, options.solves_exact)
    lines: list[dict[str, Any]] = []
    if places:
        exact = "exact ones too: --without-exact leaves these out" if meter.exact else "none exact"
        logger.info(
            "%s: measuring what %s settings keep of %s images; distances, %s",
            *(model_name, len(chosen), len(places), exact),
        )
    begin = time.perf_counter()
    what = f"{model_name}: measuring kept tokens"
    with Progress(what, len(places), progress) as bar:
        for key, many in places.items():
            first = many[0]
            image = preparer.images(first.prepared.request)[first.image]
            (tokens,) = model.encode([model.preprocess(image, key[1])], meter.signals)
            found = meter.measure(tokens, image_number(key[0]))
            lines += [{"model": model_name} | one.columns() | own for one in many for own in found]
            bar.advance(1)
            if bar.done == 1 and len(places) > 1:
                _say_cost(time.perf_counter() - begin, meter, len(places) - 1)
    tasks = list(dict.fromkeys(request.task for request in requests))
    labels = [config.label for config in chosen]

    def order(line: dict[str, Any]) -> tuple[int, int, int, int]:
        task, setting = tasks.index(line["task"]), labels.index(line["setting"])
        return task, line["doc_id"], line["image"], setting

    return sorted(lines, key=order)


def _say_cost(seconds: float, meter: "KeptTokensMeter", others: int) -> None:
    """Say what the other images will cost, from what the first one has."""
    exact = f", {_duration(others * meter.exact_seconds)} of it exact" if meter.exact else ""
    logger.info("about %s for the other %s images%s", _duration(others * seconds), others, exact)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def is_measurable(config: PruningConfig) -> bool:
    """Return whether a config prunes and the image alone determines the tokens that it keeps."""
    return config.pruning is not None and obstacle(config) is None


def obstacle(config: PruningConfig) -> str | None:
    """Return why the image alone does not determine the tokens a config keeps; None if it does.

    It does not inside the language model, where hidden states depend on the prompt's text; under
    ``compat="reference"``, which drops by position in the prompt; or for a method that reads the
    text. A merger keeps no tokens: it makes new ones.

    Raises:
        ValueError: the config prunes nothing.
    """
    pruning = config.pruning
    if pruning is None:
        raise ValueError(f"config must prune, got {config.label}")
    if pruning.inside:
        places = pruning.stages if pruning.pruner is None else pruning.pruner.points
        layers = ", ".join(str(place.layer) for place in places)
        return f"it prunes at layer {layers}, on hidden states that depend on the question"
    if config.compat is not None:
        return f"compat={config.compat!r} prunes by position in the prompt"
    if isinstance(pruning.before, Merger):
        return "it merges tokens, so that none of them is kept"
    if not pruning.needs.isdisjoint(TEXT_SIGNALS):
        return "its selection depends on the question"
    return None


def _measurable_or_logged(config: PruningConfig) -> bool:
    """Return whether a config is measurable; log why if it is not."""
    reason = obstacle(config)
    if reason is not None:
        logger.info("%s is not diagnosed: %s", config.label, reason)
    return reason is None


def drawn_images(
    preparer: RequestPreparer, requests: Sequence[Request], images: int | None
) -> Iterator[DrawnImage]:
    """Yield the images of documents drawn from each task, no two with the same images.

    Only drawn documents are read: a benchmark has many thousands.
    """
    tasks: dict[str, list[Request]] = defaultdict(list)
    for request in requests:
        tasks[request.task].append(request)
    for some in tasks.values():
        seen: set[tuple[str, ...]] = set()
        for number in np.random.default_rng(_DRAW_SEED).permutation(len(some)):
            if len(seen) == images:
                break
            try:
                prepared = preparer.prepare(some[number])
            except RequestError as error:
                logger.warning("not diagnosed: %s", error)
                continue
            if not prepared.images or prepared.images in seen:
                continue
            seen.add(prepared.images)
            for image in range(len(prepared.images)):
                yield DrawnImage(prepared, image)


class KeptTokensMeter:
    """Selects tokens of an image under several configs, and measures the kept ones.

    Args:
        model: the model.
        configs: measurable pruning configs.
        exact: whether to solve the exact transport problem.

    Attributes:
        signals: names of the signals that images must be encoded with.
        exact_seconds: time that the exact problems have taken.
    """

    def __init__(
        self, model: VisionLanguageModel, configs: Sequence[PruningConfig], exact: bool
    ) -> None:
        self.exact, self.shape, self.exact_seconds = exact, model.shape, 0.0
        self.configs = tuple(configs)
        prunings = [config.pruning for config in configs]
        self.signals: frozenset[str] = frozenset().union(*(p.needs for p in prunings if p))
        self._warm: set[tuple[PruningConfig, int]] = set()
        for pruning in prunings:
            model.check(pruning)

    def measure(self, image: ImageTokens, image_id: int) -> list[dict[str, Any]]:
        """Return a line for each config: its columns, kept positions, distances, selection time."""
        whole = FullSet(image.tokens, exact=self.exact)
        known: dict[tuple[int, ...], Measures] = {}
        height, width = image.grid or (0, 0)
        lines = []
        for config in self.configs:
            kept, seconds = self._select(config, image, image_id)
            # Several configs may keep the same tokens; with a full budget all do.
            positions = tuple(sorted(kept.tolist()))
            if positions not in known:
                known[positions] = whole.measure(kept.sort().values)
            lines.append(
                config.columns()
                | {"height": height, "width": width, "kept": kept.tolist(), "n": len(image)}
                | dataclasses.asdict(known[positions])
                | {"seconds": seconds}
            )
        self.exact_seconds += whole.exact_seconds
        return lines

    def _select(
        self, config: PruningConfig, image: ImageTokens, image_id: int
    ) -> tuple[Tensor, float]:
        pruning = config.pruning
        method = None if pruning is None else pruning.before
        if pruning is None or not isinstance(method, Selector):
            raise ValueError(f"{config.label} keeps no tokens")
        n = len(image)
        if pruning.keep_newlines and image.newline is not None:
            n -= int(image.newline.sum())
        budget = pruning.plan(n, self.shape)[0]
        known = dataclasses.replace(image.signals, image_id=image_id)
        candidates = Candidates(image, torch.arange(len(image)), image.tokens, budget, known)
        if (config, len(image)) not in self._warm:
            # A warm-up: the first call of a size allocates buffers and imports modules.
            choose(method, [candidates], pruning.keep_newlines)
            self._warm.add((config, len(image)))
        _wait(image.tokens)
        begin = time.perf_counter()
        (kept,) = choose(method, [candidates], pruning.keep_newlines)
        _wait(image.tokens)
        return kept, time.perf_counter() - begin


def _wait(tokens: Tensor) -> None:
    if tokens.device.type == "cuda":
        torch.cuda.synchronize(tokens.device)
