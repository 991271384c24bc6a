"""The engine: many requests under many cells, each answered once."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import torch

from otprune_lmms.cells import Cell
from otprune_lmms.engine.ahead import ahead
from otprune_lmms.engine.answers import Answers, Counts
from otprune_lmms.engine.batches import batches
from otprune_lmms.engine.entries import answer_of, record_of
from otprune_lmms.engine.header import describe
from otprune_lmms.engine.memory import Halving, TooLargeError
from otprune_lmms.engine.phases import Watch, clock_for, log_times
from otprune_lmms.engine.progress import Progress
from otprune_lmms.engine.prompts import check_template
from otprune_lmms.engine.rankings import Rankings
from otprune_lmms.engine.requests import Answer, Request, RequestError, RequestKey
from otprune_lmms.engine.responder import Responder
from otprune_lmms.engine.survey import Question, SeedVideo, Surveyor, whole_images
from otprune_lmms.engine.visual import ImageKey, Pixels, VisualStore, encode, preprocess
from otprune_lmms.journal import Journal, Key
from otprune_lmms.journal.fingerprint import model_fingerprint

logger = logging.getLogger(__name__)

_STORE_BYTES = 1 << 29
"""Visual tokens that are held for later batches: 100 images of LLaVA-1.5-7B."""


class Engine:
    """Answers requests under cells: documents loaded once, images encoded once for all cells.

    Args:
        loaded: what `load_pretrained_model` returns.
        model_name: what messages and the journal call the model.
        conversation: name of the conversation template.
        batch_size: questions in one call of the language model, at first.
        workers: threads that read and preprocess images ahead; 0 for none.
        journal: where finished answers are looked up and written; they are kept in memory anyway.
        seed_video: "first_frame" shows SEED-Bench's videos by their first frame, as the released
            code does; "all_frames" shows all.
        progress: whether to show how far a run is.
        use_cache: keep keys and values while decoding.
        eval_time: take each answer's times by phase (`Answer.phases`), and log them.
        rank_once: rank an image once for all budgets of a nested method and all questions about it,
            not for each answer; but for near-ties within rounding the answers are the same. Under
            ``eval_time`` each answer has its own ranking, to be timed.

    Raises:
        ValueError: an unknown template, a batch size below 1, a negative number of workers.
    """

    def __init__(
        self,
        loaded: tuple[Any, Any, Any, int],
        *,
        model_name: str,
        conversation: str = "vicuna_v1",
        batch_size: int = 1,
        workers: int = 2,
        journal: Journal | None = None,
        seed_video: SeedVideo = "first_frame",
        progress: bool = True,
        use_cache: bool = True,
        eval_time: bool = False,
        rank_once: bool = True,
    ) -> None:
        check_template(conversation)
        if batch_size < 1 or workers < 0:
            raise ValueError(
                f"batch_size must be >= 1 and workers >= 0, got {batch_size} and {workers}"
            )
        if seed_video not in ("first_frame", "all_frames"):
            raise ValueError(f"seed_video must be first_frame or all_frames, got {seed_video!r}")
        self.tokenizer, self.model, self.image_processor, _ = loaded
        self.model_name = model_name
        self.batch_size, self.workers = batch_size, workers
        self.journal, self.progress = journal, progress
        self.fingerprint = ""
        if journal is not None:
            self.fingerprint = model_fingerprint(self.model, self.tokenizer, self.image_processor)
            describe(journal, model_name, self.fingerprint, self.model)
        self.surveyor = Surveyor(self.model.config, self.fingerprint, conversation, seed_video)
        self._watch = Watch(clock_for(self.model)) if eval_time else None
        self.responder = Responder(self.model, self.tokenizer, conversation, use_cache, self._watch)
        self.halving = Halving()
        self._store = VisualStore(_STORE_BYTES)
        self._rankings = Rankings(active=rank_once and not eval_time)
        self._known: dict[tuple[str, str], Answer] = {}

    @torch.inference_mode()
    @whole_images()
    def run(self, requests: Sequence[Request], cells: Sequence[Cell]) -> Answers:
        """Return the answer to every request under every cell.

        Deterministic: neither the batch size, nor the order of the requests, nor the company that a
        request is in decide its answer, up to the rounding of sums in another order. Drawn answers
        (``temperature > 0``) are drawn with a seed made from the request.

        Raises:
            RequestError: a request that cannot be answered: broken images, a prompt that does not
                go with them, one that alone does not fit into memory. The message names it.
            ValueError: a cell that the model cannot carry out.
            JournalError: an answer could not be written.
        """
        cells = tuple(dict.fromkeys(cells))
        for cell in cells:
            self.model.check_pruning(cell.pruning())
        counts = Counts(requests=len(requests) * len(cells))
        halvings, ranked = self.halving.halvings, self._rankings.ranked
        digests, questions = self._survey(requests, counts)
        seen = {question.digest: question for question in questions}
        left = self._unanswered(questions, cells, counts)
        total = sum(len(missing) for missing in left.values())
        work = list(batches([q for q in questions if left[q.digest]], self.batch_size))
        what = f"{self.model_name}: answers"
        with (
            closing(ahead(self._load, work, self.workers, self.workers + 1)) as loads,
            Progress(what, total, self.progress) as progress,
        ):
            for batch in work:
                with _timed(counts, "load"):
                    pixels = next(loads)
                self._encode(batch, pixels, cells, counts)
                wanted = set().union(*(left[question.digest] for question in batch))
                self._rankings.expect(cell.pruning() for cell in wanted)
                for cell in cells:
                    rows = [question for question in batch if cell in left[question.digest]]
                    for done in self._answer(rows, cell, counts):
                        progress.advance(done)
                self._store.shrink()
                with _timed(counts, "journal"):
                    if self.journal is not None:
                        self.journal.flush()
        counts.halvings = self.halving.halvings - halvings
        counts.ranked = self._rankings.ranked - ranked
        images = {key: seen[digest].images for key, digest in digests.items()}
        answers = Answers(digests, dict(self._known), cells, tuple(requests), counts, images)
        if self._watch is not None:
            log_times(answers)
        return answers

    def _survey(
        self, requests: Sequence[Request], counts: Counts
    ) -> tuple[dict[RequestKey, str], list[Question]]:
        """Return the question of each request, and the different questions."""
        unique = _unique(requests)
        digests: dict[RequestKey, str] = {}
        questions: dict[str, Question] = {}
        what, depth = f"{self.model_name}: reading images", 2 * self.workers
        with (
            _timed(counts, "survey"),
            Progress(what, len(unique), self.progress) as progress,
            closing(ahead(self.surveyor.question, unique, self.workers, depth)) as found,
        ):
            for request, question in zip(unique, found, strict=True):
                digests[request.key] = question.digest
                questions.setdefault(question.digest, question)
                progress.advance(1)
        counts.images = len({image for q in questions.values() for image in q.images})
        return digests, list(questions.values())

    def _unanswered(
        self, questions: Sequence[Question], cells: Sequence[Cell], counts: Counts
    ) -> dict[str, set[Cell]]:
        """Return the cells that each question still has to be answered under."""
        left: dict[str, set[Cell]] = {question.digest: set() for question in questions}
        for cell in cells:
            fingerprint = cell.fingerprint
            for question in questions:
                key = Key(fingerprint, question.digest)
                if key in self._known:
                    continue
                record = None if self.journal is None else self.journal.find(key)
                if record is None:
                    left[question.digest].add(cell)
                else:
                    self._known[key] = answer_of(record)
                    counts.reused += 1
        return left

    def _load(self, batch: Sequence[Question]) -> dict[ImageKey, Pixels]:
        """Return the pixel values of a batch's images that are not encoded yet."""
        found: dict[ImageKey, Pixels] = {}
        for question in batch:
            aspect = question.generation.aspect
            keys = _keys(question)
            if all(key in found or key in self._store for key in keys):
                continue
            pictures = self.surveyor.pictures(question.request)
            for key, picture in zip(keys, pictures, strict=True):
                if key not in found:
                    config = self.model.config
                    found[key] = preprocess(picture, self.image_processor, config, aspect)
        return found

    def _encode(
        self,
        batch: Sequence[Question],
        pixels: dict[ImageKey, Pixels],
        cells: Sequence[Cell],
        counts: Counts,
    ) -> None:
        """Put the visual tokens of a batch's images into the store."""
        missing = self._store.missing(key for question in batch for key in _keys(question))
        if any(key not in pixels for key in missing):
            # They were in the store when the batch was read ahead, and have left it since.
            pixels = self._load(batch) | pixels
        prunings = [cell.pruning() for cell in cells]
        signals = frozenset().union(*(p.needs for p in prunings if p is not None))

        def work(keys: Sequence[ImageKey]) -> list[Any]:
            images = [pixels[key] for key in keys]
            if self._watch is None:
                return encode(self.model, images, signals)
            return self._watch.encode(keys, lambda: encode(self.model, images, signals))

        with _timed(counts, "encode"), _named_if_too_large(batch):
            for keys, tokens in self.halving.run("images", missing, work, self.batch_size):
                self._store.put(dict(zip(keys, tokens, strict=True)))
        counts.encoded += len(missing)

    def _answer(self, questions: Sequence[Question], cell: Cell, counts: Counts) -> Iterator[int]:
        """Answer questions of one batch under one cell, piece by piece; yield how many are done."""
        alone = cell.compat == "reference"
        # The forks let a batch's first row decide for all; drawn answers need a seed each.
        size = 1 if alone or any(q.generation.samples for q in questions) else len(questions)
        visual = self._store.take(key for question in questions for key in _keys(question))
        aspect = questions[0].generation.aspect if questions else None
        pruning = self._rankings.bind(cell.pruning(), aspect)
        respond = self.responder.bind(pruning, visual)
        for start in range(0, len(questions), max(size, 1)):
            part = questions[start : start + size]
            begin = time.perf_counter()
            with _named_if_too_large(part):
                for piece, answers in self.halving.run(f"rows of {cell.label}", part, respond):
                    counts.add("generate", time.perf_counter() - begin)
                    with _timed(counts, "journal"):
                        self._keep(piece, answers, cell)
                    counts.generated += len(piece)
                    yield len(piece)
                    begin = time.perf_counter()

    def _keep(self, questions: Sequence[Question], answers: Sequence[Answer], cell: Cell) -> None:
        fingerprint = cell.fingerprint
        for question, answer in zip(questions, answers, strict=True):
            self._known[Key(fingerprint, question.digest)] = answer
        if self.journal is not None:
            pairs = zip(questions, answers, strict=True)
            self.journal.append(*(record_of(q, a, cell, fingerprint) for q, a in pairs))


def _unique(requests: Sequence[Request]) -> list[Request]:
    """Return the different requests, in order.

    Raises:
        RequestError: one is there twice with different generation settings.
    """
    found: dict[RequestKey, Request] = {}
    for request in requests:
        if found.setdefault(request.key, request).generation != request.generation:
            raise RequestError(f"{request.name} is asked twice with other generation settings")
    return list(found.values())


def _keys(question: Question) -> list[ImageKey]:
    return [(image, question.generation.aspect) for image in question.images]


@contextmanager
def _timed(counts: Counts, phase: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        counts.add(phase, time.perf_counter() - begin)


@contextmanager
def _named_if_too_large(questions: Sequence[Question]) -> Iterator[None]:
    try:
        yield
    except TooLargeError as error:
        culprits = [q for q in questions if q is error.item or error.item in _keys(q)]
        raise RequestError(
            f"{culprits[0].request.name} alone does not fit into memory: {error}"
        ) from error
