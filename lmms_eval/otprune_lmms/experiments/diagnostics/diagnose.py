"""Measure what every cell keeps of the images of an experiment."""

import dataclasses
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from otprune import Merger, Selector
from otprune.hf.layers import decoder_shape
from otprune.pruning import Pruning
from otprune.pruning.choose import Candidates, choose
from otprune.pruning.image_tokens import ImageTokens
from otprune.signals import TEXT_SIGNALS
from otprune_lmms.engine import Request, RequestError
from otprune_lmms.engine.identity import image_number
from otprune_lmms.engine.progress import Progress
from otprune_lmms.engine.survey import Question, SeedVideo, Surveyor, whole_images
from otprune_lmms.engine.visual import ImageKey, encode, preprocess
from otprune_lmms.experiments.diagnostics.measures import FullSet, Measures
from otprune_lmms.experiments.records import cluster_of, row_label
from otprune_lmms.pruning_config import Cell

logger = logging.getLogger(__name__)

_SEED = 0
"""Of the draw of documents."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An image of a document that was drawn.

    Attributes:
        question: of the document.
        image: which of its images.
    """

    question: Question
    image: int

    @property
    def key(self) -> ImageKey:
        """What the image is encoded under."""
        return (self.question.images[self.image], self.question.generation.aspect)


@torch.inference_mode()
@whole_images()
def diagnose(
    loaded: tuple[Any, Any, Any, int],
    requests: Sequence[Request],
    cells: Sequence[Cell],
    *,
    model_name: str,
    images: int | None = 24,
    exact: bool = True,
    conversation: str = "vicuna_v1",
    seed_video: SeedVideo = "first_frame",
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Return one row (`store.COLUMNS`) for each cell, and image of the chosen documents.

    Each image is encoded once, and its tokens are handed to each cell's method as the engine
    hands them, one image at a time. Documents are drawn from each task, with a fixed seed, no two
    with the same images. Cells that prune nothing are left out; so are, with a line in the log,
    those that `measurable` refuses. A document whose images cannot be read is skipped and logged.

    Args:
        loaded: what `load_pretrained_model` returns.
        requests: of all tasks.
        cells: settings.
        model_name: what the rows call the model.
        images: documents with distinct images of each task; None for all.
        exact: whether to solve the exact transport problem too, which needs POT.
        conversation: name of the conversation template.
        seed_video: as in `Engine`.
        progress: whether to show how far it is.

    Raises:
        ValueError: images below 1; a cell that the model cannot carry out.
        ImportError: ``exact`` without POT.
    """
    if images is not None and images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    _, model, processor, _ = loaded
    chosen = [cell for cell in cells if cell.method is not None and _said(cell)]
    surveyor = Surveyor(model.config, "", conversation, seed_video)
    places: dict[ImageKey, list[Shown]] = defaultdict(list)
    for shown in _chosen(surveyor, requests, images) if chosen else ():
        places[shown.key].append(shown)
    prober = Prober(model, chosen, exact)
    rows: list[dict[str, Any]] = []
    what = f"{model_name}: diagnosing images"
    with Progress(what, len(places), progress) as bar:
        for key, many in places.items():
            pixels = preprocess(_picture(surveyor, many[0]), processor, model.config, key[1])
            (tokens,) = encode(model, [pixels], prober.signals)
            found = prober.probe(tokens, image_number(key[0]))
            rows += [{"model": model_name} | _place(one) | row for one in many for row in found]
            bar.advance(1)
    tasks = list(dict.fromkeys(request.task for request in requests))
    labels = [cell.label for cell in chosen]
    return sorted(
        rows,
        key=lambda r: (tasks.index(r["task"]), r["doc_id"], r["image"], labels.index(r["cell"])),
    )


def measurable(cell: Cell) -> bool:
    """Return whether what a cell keeps is decided by an image alone, before the language model.

    Not so inside the language model, where tokens are hidden states that depend on the question;
    under ``compat="reference"``, which drops by position in the prompt; or for a method that reads
    the question. A merger keeps no tokens: it makes new ones.
    """
    return obstacle(cell) is None


def obstacle(cell: Cell) -> str | None:
    """Return why an image alone does not decide what a cell keeps; None if it does."""
    pruning = _pruning(cell)
    if pruning.inside:
        places = pruning.stages if pruning.pruner is None else pruning.pruner.points
        layers = ", ".join(str(place.layer) for place in places)
        return f"it prunes at layer {layers}, on hidden states that depend on the question"
    if cell.compat is not None:
        return f"compat={cell.compat!r} prunes by position in the prompt"
    if isinstance(pruning.before, Merger):
        return "it merges tokens, so that none of them is kept"
    if not pruning.needs.isdisjoint(TEXT_SIGNALS):
        return "its selection depends on the question"
    return None


def _said(cell: Cell) -> bool:
    """Return whether a cell is measurable, and log why not."""
    reason = obstacle(cell)
    if reason is not None:
        logger.info("%s is not diagnosed: %s", cell.label, reason)
    return reason is None


def _pruning(cell: Cell) -> Pruning:
    pruning = cell.pruning()
    if pruning is None:
        raise ValueError(f"cell must prune, got {cell.label}")
    return pruning


def _chosen(surveyor: Surveyor, requests: Sequence[Request], images: int | None) -> Iterator[Shown]:
    """Yield the images of documents drawn from each task, no two with the same images.

    Only documents that are drawn are read: a benchmark has many thousands.
    """
    tasks: dict[str, list[Request]] = defaultdict(list)
    for request in requests:
        tasks[request.task].append(request)
    for some in tasks.values():
        seen: set[tuple[str, ...]] = set()
        for number in np.random.default_rng(_SEED).permutation(len(some)):
            if len(seen) == images:
                break
            question = _question(surveyor, some[number])
            if question is None or not question.images or question.images in seen:
                continue
            seen.add(question.images)
            for image in range(len(question.images)):
                yield Shown(question, image)


def _question(surveyor: Surveyor, request: Request) -> Question | None:
    try:
        return surveyor.question(request)
    except RequestError as error:
        logger.warning("not diagnosed: %s", error)
        return None


def _picture(surveyor: Surveyor, shown: Shown) -> Image.Image:
    return surveyor.pictures(shown.question.request)[shown.image]


def _place(shown: Shown) -> dict[str, Any]:
    request = shown.question.request
    return {
        "cluster": cluster_of(shown.question.images),
        "task": request.task,
        "doc_id": request.doc_id,
        "image": shown.image,
    }


class Prober:
    """Selects and measures under several cells.

    Args:
        model: the model.
        cells: that prune before it.
        exact: whether to solve the exact transport problem.
    """

    def __init__(self, model: Any, cells: Sequence[Cell], exact: bool) -> None:
        self.exact, self.shape = exact, decoder_shape(model.config)
        self.cells = {cell: _pruning(cell) for cell in cells}
        self.signals: frozenset[str] = frozenset().union(*(p.needs for p in self.cells.values()))
        self._warm: set[tuple[Cell, int]] = set()
        for pruning in self.cells.values():
            model.check_pruning(pruning)

    def probe(self, image: ImageTokens, image_id: int) -> list[dict[str, Any]]:
        """Return what each cell keeps of an image, how far it is from all, and how long it took."""
        whole = FullSet(image.tokens, exact=self.exact)
        known: dict[tuple[int, ...], Measures] = {}
        height, width = image.grid or (0, 0)
        rows = []
        for cell, pruning in self.cells.items():
            kept, seconds = self._select(cell, pruning, image, image_id)
            # Methods agree on some images; at full budget all do.
            positions = tuple(sorted(kept.tolist()))
            if positions not in known:
                known[positions] = whole.measure(kept.sort().values)
            rows.append(
                _setting(cell)
                | {"height": height, "width": width, "kept": kept.tolist(), "n": len(image)}
                | dataclasses.asdict(known[positions])
                | {"seconds": seconds}
            )
        return rows

    def _select(
        self, cell: Cell, pruning: Pruning, image: ImageTokens, image_id: int
    ) -> tuple[Tensor, float]:
        newlines = pruning.keep_newlines
        n = len(image)
        if newlines and image.newline is not None:
            n -= int(image.newline.sum())
        budget = pruning.plan(n, self.shape)[0]
        known = dataclasses.replace(image.signals, image_id=image_id)
        candidates = Candidates(image, torch.arange(len(image)), image.tokens, budget, known)
        method = pruning.stages[0].method
        if not isinstance(method, Selector):
            raise ValueError(f"{cell.label} keeps no tokens")
        if (cell, len(image)) not in self._warm:
            # The first call of a size pays for buffers and lazy imports.
            choose(method, [candidates], newlines)
            self._warm.add((cell, len(image)))
        _wait(image.tokens)
        begin = time.perf_counter()
        (kept,) = choose(method, [candidates], newlines)
        _wait(image.tokens)
        return kept, time.perf_counter() - begin


def _wait(tokens: Tensor) -> None:
    if tokens.device.type == "cuda":
        torch.cuda.synchronize(tokens.device)


def _setting(cell: Cell) -> dict[str, Any]:
    return {
        "cell": cell.label,
        "row": row_label(cell),
        "method": cell.method,
        "keep_ratio": cell.keep_ratio,
        "k": cell.k,
        "layer": cell.layer,
        "seed": cell.seed,
    }
