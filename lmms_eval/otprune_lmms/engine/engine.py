"""The engine: many requests under many pruning configs, each answered once."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import torch

from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.engine.ahead import ahead
from otprune_lmms.engine.answers import Answers, Counts
from otprune_lmms.engine.batches import Batch, BatchQueue, batches, jump_of
from otprune_lmms.engine.memory import Halving
from otprune_lmms.engine.pending import PendingAnswers
from otprune_lmms.engine.phases import PhaseTimer, clock_for, log_times
from otprune_lmms.engine.prepare import RequestPreparer, SeedVideo
from otprune_lmms.engine.progress import Progress
from otprune_lmms.engine.rankings import Rankings
from otprune_lmms.engine.reading import LoadedBatch, RequestReader, named_if_too_large
from otprune_lmms.engine.request_set import LeaveOut, RequestSet
from otprune_lmms.engine.requests import Answer, Request
from otprune_lmms.engine.responder import Responder
from otprune_lmms.engine.session import describe
from otprune_lmms.engine.visual_store import ImageKey, VisualStore, keys_of
from otprune_lmms.images import refuse_truncated_images
from otprune_lmms.journal import Journal, write_request_list
from otprune_lmms.models.protocol import VisionLanguageModel
from otprune_lmms.pruning_config import PruningConfig

logger = logging.getLogger(__name__)

_STORE_BYTES = 1 << 29
"""Visual tokens that are held for later batches: 100 images of LLaVA-1.5-7B."""


class Engine:
    """Answers requests under configs: each document read once, each image encoded once for all.

    Args:
        model: what answers.
        model_name: what messages and the journal call it.
        batch_size: requests in one call of the language model, at first.
        workers: threads that read and preprocess images ahead; 0 for none.
        journal: where finished answers are looked up and written; they are kept in memory anyway.
        seed_video: "first_frame" shows a benchmark's videos by their first frame, as the released
            code does; "all_frames" shows all.
        progress: whether to show how far a run is.
        eval_time: take each answer's times by phase (`Answer.phases`), and log them.
        rank_once: rank an image once for all budgets of a nested method and all questions about it,
            not for each answer; but for near-ties within rounding the answers are the same. Under
            ``eval_time`` each answer has its own ranking, to be timed.

    Raises:
        ValueError: a batch size below 1, a negative number of workers.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        model_name: str,
        batch_size: int = 1,
        workers: int = 2,
        journal: Journal | None = None,
        seed_video: SeedVideo = "first_frame",
        progress: bool = True,
        eval_time: bool = False,
        rank_once: bool = True,
    ) -> None:
        if batch_size < 1 or workers < 0:
            raise ValueError(
                f"batch_size must be >= 1 and workers >= 0, got {batch_size} and {workers}"
            )
        if seed_video not in ("first_frame", "all_frames"):
            raise ValueError(f"seed_video must be first_frame or all_frames, got {seed_video!r}")
        self.model, self.model_name = model, model_name
        self.batch_size, self.workers = batch_size, workers
        self.journal, self.progress = journal, progress
        fingerprint = ""
        if journal is not None:
            fingerprint = model.fingerprint
            describe(journal, model_name, model)
        self.preparer = RequestPreparer(model, fingerprint, seed_video)
        self._watch = PhaseTimer(clock_for(model)) if eval_time else None
        self.responder = Responder(model, self._watch)
        self.halving = Halving()
        self._store, self._signals = VisualStore(_STORE_BYTES), frozenset[str]()
        self._rankings = Rankings(model.shape, active=rank_once and not eval_time)
        self._known: dict[tuple[str, str], Answer] = {}

    @torch.inference_mode()
    @refuse_truncated_images()
    def run(
        self,
        requests: Sequence[Request],
        configs: Sequence[PruningConfig],
        leave_out: LeaveOut | None = None,
    ) -> Answers:
        """Return the answer to every request under every config.

        Deterministic: the answer to a request depends neither on the batch size, nor on the order
        of the requests, nor on what else is asked, up to the rounding of sums in another order.
        Drawn answers (``temperature > 0``) are drawn with a seed made from the request.

        Several processes may answer the same requests into one journal: a process that meets
        another one goes on elsewhere, and all return the same answers. What is answered twice
        meanwhile, a piece of a batch or two, is counted when the journal is opened and changes
        nothing.

        Args:
            requests: what is asked.
            configs: under which settings.
            leave_out: is called once, before the first answer, with the documents that cannot be
                asked about; these and all that it returns are left out under every config
                (`Answers.failed`). None: the first is an error.

        Raises:
            DocumentError: without ``leave_out`` a document whose images are broken or do not go
                with its prompt.
            RequestError: one request alone does not fit into memory; the message names it.
            ValueError: a config that the model cannot carry out.
            JournalError: an answer could not be written.
        """
        configs = tuple(dict.fromkeys(configs))
        for config in configs:
            self.model.check(config.pruning)
        self._need(configs)
        counts = Counts()
        halvings, ranked = self.halving.halvings, self._rankings.ranked
        reader = RequestReader(self.preparer, self._store, leave_out is None)
        asked = self._prepare(requests, reader, counts, leave_out)
        if self.journal is not None:
            experiment = str(self.journal.header.get("experiment", ""))
            request_list = asked.request_list(self.model.fingerprint, self.model_name, experiment)
            write_request_list(self.journal.folder, request_list)
        pending = PendingAnswers(asked.unique(), configs, self._known, self.journal, counts)
        self._answer_all(asked, configs, pending, reader, counts)
        counts.requests = len(asked.requests) * len(configs)
        counts.failed = len({(one.task, one.doc_id) for one in asked.failed})
        counts.halvings = self.halving.halvings - halvings
        counts.ranked = self._rankings.ranked - ranked
        answers = Answers(asked, dict(self._known), configs, counts)
        if self._watch is not None:
            log_times(answers)
        return answers

    def _prepare(
        self,
        requests: Sequence[Request],
        reader: RequestReader,
        counts: Counts,
        leave_out: LeaveOut | None,
    ) -> RequestSet:
        """Return the requests prepared, less the documents that are left out."""
        asked = RequestSet(requests)
        what, depth = f"{self.model_name}: reading images", 2 * self.workers
        with (
            _timed(counts, "survey"),
            Progress(what, len(asked.different), self.progress) as progress,
            closing(ahead(reader.prepare, asked.different, self.workers, depth)) as found,
        ):
            for request, prepared in zip(asked.different, found, strict=True):
                asked.add(request, prepared)
                progress.advance(1)
        if leave_out is not None:
            failed = {(one.task, one.doc_id) for one in asked.failed}
            asked.leave_out(failed | set(leave_out(asked.failed)))
        counts.images = len({image for one in asked.prepared.values() for image in one.images})
        return asked

    def _answer_all(
        self,
        asked: RequestSet,
        configs: Sequence[PruningConfig],
        pending: PendingAnswers,
        reader: RequestReader,
        counts: Counts,
    ) -> None:
        """Make the pending answers, and take what other processes answer meanwhile."""
        requests = [one for one in asked.unique() if one in pending]
        jump = 0.0 if self.journal is None else jump_of(self.journal.writer)
        queue = BatchQueue(batches(requests, self.batch_size), pending.any, jump)
        total = len(pending)
        with Progress(f"{self.model_name}: answers", total, self.progress) as progress:

            def tick() -> None:
                progress.advance(total - len(pending) - progress.done)

            while queue:
                with closing(ahead(reader.load, queue, self.workers, self.workers + 1)) as loads:
                    for loaded in _each(loads, counts):
                        if not queue.begin(loaded.batch):
                            continue
                        loaded = reader.complete(loaded)
                        if loaded.failed:
                            asked.fail(loaded.failed)
                            pending.drop(loaded.failed)
                        self._answer_batch(loaded, configs, pending, queue, counts, tick)
                        tick()
            pending.refresh()

    def _answer_batch(
        self,
        loaded: LoadedBatch,
        configs: Sequence[PruningConfig],
        pending: PendingAnswers,
        queue: BatchQueue,
        counts: Counts,
        tick: Callable[[], None],
    ) -> None:
        """Answer a batch config by config, unless another process is at it."""
        if queue.leave(loaded.batch, pending.refresh()) or not pending.any(loaded.batch):
            return
        self._encode(loaded, counts)
        self._rankings.expect(config.pruning for config in pending.configs(loaded.batch))
        for config in configs:
            if queue.leave(loaded.batch, pending.refresh()):
                break
            self._answer(pending.rows(loaded.batch, config), config, pending, counts, tick)
        self._store.shrink()
        with _timed(counts, "journal"):
            if self.journal is not None:
                self.journal.flush()

    def _need(self, configs: Sequence[PruningConfig]) -> None:
        """See to it that images are encoded with the signals of all configs."""
        prunings = [config.pruning for config in configs]
        needs = self._signals.union(*(p.needs for p in prunings if p is not None))
        if needs != self._signals:
            # Images that were encoded without them are of no use.
            self._store, self._signals = VisualStore(_STORE_BYTES), needs

    def _encode(self, loaded: LoadedBatch, counts: Counts) -> None:
        """Put the visual tokens of a batch's images into the store."""
        keys = (key for one in loaded.readable for key in keys_of(one))
        missing, signals = self._store.missing(keys), self._signals

        def work(keys: Sequence[ImageKey]) -> list[ImageTokens]:
            images = [loaded.pixels[key] for key in keys]
            if self._watch is None:
                return self.model.encode(images, signals)
            return self._watch.encode(keys, lambda: self.model.encode(images, signals))

        with _timed(counts, "encode"), named_if_too_large(loaded.batch):
            for keys, tokens in self.halving.run("images", missing, work, self.batch_size):
                self._store.put(dict(zip(keys, tokens, strict=True)))
        counts.encoded += len(missing)

    def _answer(
        self,
        requests: Batch,
        config: PruningConfig,
        pending: PendingAnswers,
        counts: Counts,
        tick: Callable[[], None],
    ) -> None:
        """Answer requests of one batch under one config, piece by piece."""
        alone = config.compat == "reference"
        # The forks let a batch's first row decide for all; drawn answers need a seed each.
        size = 1 if alone or any(one.generation.samples for one in requests) else len(requests)
        visual = self._store.take(key for one in requests for key in keys_of(one))
        view = requests[0].prompt.image_view if requests else None
        pruning = self._rankings.bind(config.pruning, view)
        respond = self.responder.bind(pruning, visual)
        for start in range(0, len(requests), max(size, 1)):
            part = requests[start : start + size]
            begin = time.perf_counter()
            with named_if_too_large(part):
                for piece, answers in self.halving.run(f"rows of {config.label}", part, respond):
                    counts.add("generate", time.perf_counter() - begin)
                    with _timed(counts, "journal"):
                        pending.keep(piece, answers, config)
                    tick()
                    begin = time.perf_counter()


def _each(loads: Iterator[LoadedBatch], counts: Counts) -> Iterator[LoadedBatch]:
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
