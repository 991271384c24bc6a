"""The engine: many requests under many cells, each answered once."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import torch

from otprune.hf.layers import decoder_shape
from otprune_lmms.engine.ahead import ahead
from otprune_lmms.engine.answers import Answers, Counts
from otprune_lmms.engine.asked import Asked, LeaveOut
from otprune_lmms.engine.batches import batches
from otprune_lmms.engine.header import describe
from otprune_lmms.engine.memory import Halving
from otprune_lmms.engine.pending import Left
from otprune_lmms.engine.phases import Watch, clock_for, log_times
from otprune_lmms.engine.progress import Progress
from otprune_lmms.engine.prompts import check_template
from otprune_lmms.engine.rankings import Rankings
from otprune_lmms.engine.reader import Loaded, Reader, keys_of, named_if_too_large
from otprune_lmms.engine.requests import Answer, Request
from otprune_lmms.engine.responder import Responder
from otprune_lmms.engine.survey import Question, SeedVideo, Surveyor, whole_images
from otprune_lmms.engine.visual import ImageKey, VisualStore, encode
from otprune_lmms.engine.work import Work, share_of
from otprune_lmms.journal import Journal, write_ledger
from otprune_lmms.journal.fingerprint import model_fingerprint
from otprune_lmms.pruning_config import Cell

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
        self._store, self._signals = VisualStore(_STORE_BYTES), frozenset[str]()
        shape = decoder_shape(self.model.config)
        self._rankings = Rankings(shape, active=rank_once and not eval_time)
        self._known: dict[tuple[str, str], Answer] = {}

    @torch.inference_mode()
    @whole_images()
    def run(
        self,
        requests: Sequence[Request],
        cells: Sequence[Cell],
        leave_out: LeaveOut | None = None,
    ) -> Answers:
        """Return the answer to every request under every cell.

        Deterministic: neither the batch size, nor the order of the requests, nor the company that a
        request is in decide its answer, up to the rounding of sums in another order. Drawn answers
        (``temperature > 0``) are drawn with a seed made from the request.

        Several processes may answer the same questions into one journal: who meets another one goes
        on elsewhere, and all return the same answers. What is answered twice meanwhile, a piece of
        a batch or two, is counted when the journal is opened, and of no account.

        Args:
            requests: what is asked.
            cells: under which settings.
            leave_out: is called once, before the first answer, with the documents that cannot be
                asked about; these and all that it returns are left out under every cell
                (`Answers.failed`). None: the first is an error.

        Raises:
            DocumentError: without ``leave_out`` a document whose images are broken or do not go
                with its prompt.
            RequestError: one question alone does not fit into memory; the message names it.
            ValueError: a cell that the model cannot carry out.
            JournalError: an answer could not be written.
        """
        cells = tuple(dict.fromkeys(cells))
        for cell in cells:
            self.model.check_pruning(cell.pruning())
        self._need(cells)
        counts = Counts()
        halvings, ranked = self.halving.halvings, self._rankings.ranked
        reader = Reader(self.surveyor, self.image_processor, self._store, leave_out is None)
        asked = self._survey(requests, reader, counts, leave_out)
        if self.journal is not None:
            experiment = str(self.journal.header.get("experiment", ""))
            ledger = asked.ledger(self.fingerprint, self.model_name, experiment)
            write_ledger(self.journal.folder, ledger)
        left = Left(asked.unique(), cells, self._known, self.journal, counts)
        self._answer_all(asked, cells, left, reader, counts)
        counts.requests = len(asked.requests) * len(cells)
        counts.failed = len({(one.task, one.doc_id) for one in asked.failed})
        counts.halvings = self.halving.halvings - halvings
        counts.ranked = self._rankings.ranked - ranked
        answers = Answers(asked, dict(self._known), cells, counts)
        if self._watch is not None:
            log_times(answers)
        return answers

    def _survey(
        self,
        requests: Sequence[Request],
        reader: Reader,
        counts: Counts,
        leave_out: LeaveOut | None,
    ) -> Asked:
        """Return what is asked, less the documents that are left out."""
        asked = Asked(requests)
        what, depth = f"{self.model_name}: reading images", 2 * self.workers
        with (
            _timed(counts, "survey"),
            Progress(what, len(asked.different), self.progress) as progress,
            closing(ahead(reader.question, asked.different, self.workers, depth)) as found,
        ):
            for request, question in zip(asked.different, found, strict=True):
                asked.add(request, question)
                progress.advance(1)
        if leave_out is not None:
            failed = {(one.task, one.doc_id) for one in asked.failed}
            asked.leave_out(failed | set(leave_out(asked.failed)))
        counts.images = len({image for q in asked.questions.values() for image in q.images})
        return asked

    def _answer_all(
        self, asked: Asked, cells: Sequence[Cell], left: Left, reader: Reader, counts: Counts
    ) -> None:
        """Answer what is left, and take what other processes answer meanwhile."""
        questions = [question for question in asked.unique() if question in left]
        share = 0.0 if self.journal is None else share_of(self.journal.writer)
        work = Work(batches(questions, self.batch_size), left.any, share)
        total = len(left)
        with Progress(f"{self.model_name}: answers", total, self.progress) as progress:

            def tick() -> None:
                progress.advance(total - len(left) - progress.done)

            while work:
                with closing(ahead(reader.load, work, self.workers, self.workers + 1)) as loads:
                    for loaded in _each(loads, counts):
                        if not work.begin(loaded.batch):
                            continue
                        loaded = reader.complete(loaded)
                        if loaded.failed:
                            asked.fail(loaded.failed)
                            left.drop(loaded.failed)
                        self._answer_batch(loaded, cells, left, work, counts, tick)
                        tick()
            left.refresh()

    def _answer_batch(
        self,
        loaded: Loaded,
        cells: Sequence[Cell],
        left: Left,
        work: Work,
        counts: Counts,
        tick: Callable[[], None],
    ) -> None:
        """Answer a batch cell by cell, unless another process is at it."""
        if work.met(loaded.batch, left.refresh()) or not left.any(loaded.batch):
            return
        self._encode(loaded, counts)
        self._rankings.expect(cell.pruning() for cell in left.cells(loaded.batch))
        for cell in cells:
            if work.met(loaded.batch, left.refresh()):
                break
            self._answer(left.rows(loaded.batch, cell), cell, left, counts, tick)
        self._store.shrink()
        with _timed(counts, "journal"):
            if self.journal is not None:
                self.journal.flush()

    def _need(self, cells: Sequence[Cell]) -> None:
        """See to it that images have the signals of all cells; without them they are no use."""
        prunings = [cell.pruning() for cell in cells]
        needs = self._signals.union(*(p.needs for p in prunings if p is not None))
        if needs != self._signals:
            self._store, self._signals = VisualStore(_STORE_BYTES), needs

    def _encode(self, loaded: Loaded, counts: Counts) -> None:
        """Put the visual tokens of a batch's images into the store."""
        keys = (key for question in loaded.questions for key in keys_of(question))
        missing, signals = self._store.missing(keys), self._signals

        def work(keys: Sequence[ImageKey]) -> list[Any]:
            images = [loaded.pixels[key] for key in keys]
            if self._watch is None:
                return encode(self.model, images, signals)
            return self._watch.encode(keys, lambda: encode(self.model, images, signals))

        with _timed(counts, "encode"), named_if_too_large(loaded.batch):
            for keys, tokens in self.halving.run("images", missing, work, self.batch_size):
                self._store.put(dict(zip(keys, tokens, strict=True)))
        counts.encoded += len(missing)

    def _answer(
        self,
        questions: Sequence[Question],
        cell: Cell,
        left: Left,
        counts: Counts,
        tick: Callable[[], None],
    ) -> None:
        """Answer questions of one batch under one cell, piece by piece."""
        alone = cell.compat == "reference"
        # The forks let a batch's first row decide for all; drawn answers need a seed each.
        size = 1 if alone or any(q.generation.samples for q in questions) else len(questions)
        visual = self._store.take(key for question in questions for key in keys_of(question))
        aspect = questions[0].generation.aspect if questions else None
        pruning = self._rankings.bind(cell.pruning(), aspect)
        respond = self.responder.bind(pruning, visual)
        for start in range(0, len(questions), max(size, 1)):
            part = questions[start : start + size]
            begin = time.perf_counter()
            with named_if_too_large(part):
                for piece, answers in self.halving.run(f"rows of {cell.label}", part, respond):
                    counts.add("generate", time.perf_counter() - begin)
                    with _timed(counts, "journal"):
                        left.keep(piece, answers, cell)
                    tick()
                    begin = time.perf_counter()


def _each(loads: Iterator[Loaded], counts: Counts) -> Iterator[Loaded]:
    """Yield what is loaded, and count the time that it is waited for."""
    while True:
        with _timed(counts, "load"):
            loaded = next(loads, None)
        if loaded is None:
            return
        yield loaded


@contextmanager
def _timed(counts: Counts, phase: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        counts.add(phase, time.perf_counter() - begin)
