"""The engine: answers many requests under many pruning configs, each once."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import torch

from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.documents import SeedVideo
from otprune_lmms.engine.ahead import ahead
from otprune_lmms.engine.answers import Answers, Counts
from otprune_lmms.engine.batches import Batch, BatchQueue, batches, jump_of
from otprune_lmms.engine.memory import Halving
from otprune_lmms.engine.pending import PendingAnswers
from otprune_lmms.engine.phases import PhaseTimer, clock_for, log_times
from otprune_lmms.engine.prepare import RequestPreparer
from otprune_lmms.engine.progress import Progress
from otprune_lmms.engine.rankings import Rankings
from otprune_lmms.engine.reading import LoadedBatch, RequestReader, named_if_too_large
from otprune_lmms.engine.request_set import LeaveOut, RequestSet
from otprune_lmms.engine.requests import Answer, Request
from otprune_lmms.engine.responder import Responder
from otprune_lmms.engine.session import describe, source_of
from otprune_lmms.engine.visual_files import VisualFiles, VisualFolder
from otprune_lmms.engine.visual_store import ImageKey, VisualStore, keys_of
from otprune_lmms.images import guarded_images
from otprune_lmms.journal import Journal, write_request_list
from otprune_lmms.models.protocol import VisionLanguageModel
from otprune_lmms.pruning_config import PruningConfig

logger = logging.getLogger(__name__)

_STORE_BYTES = 1 << 29
"""Bytes of visual tokens held for later batches: about 100 images of LLaVA-1.5-7B."""


class Engine:
    """Answers requests under pruning configs; each image is read and encoded once for all configs.

    Args:
        model: the model that answers.
        model_name: its name in messages and in the journal.
        batch_size: requests in one call of the language model; halved where memory runs out.
        workers: threads that read and preprocess images ahead; 0 for none.
        journal: where answers are looked up and written; None keeps them in memory only.
        seed_video: "first_frame" shows a video by its first frame, as the released code does;
            "all_frames" shows all.
        progress: whether to show progress.
        eval_time: take each answer's times by phase (`Answer.phases`), and log them.
        rank_once: rank an image once for all budgets of a nested method and for all requests about
            it, not once for each answer. The answers are the same, except where scores tie within
            rounding. Under ``eval_time`` each answer has its own ranking, which is timed.
        visual_folder: where visual tokens are stored, and looked up before an image is encoded;
            None for nowhere. Not used under ``eval_time``, which times the encoding, nor for a
            model that another process runs.
        share_prefix: let questions of a batch about the same images share what the language model
            makes of these and of the text around them, where the model and the method allow it and
            it pays. The answers are the same up to the rounding of sums in another order. Not under
            ``eval_time``.

    Raises:
        ValueError: a batch size below 1, a negative number of workers; times of a model that
            another process runs.
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
        visual_folder: VisualFolder | None = None,
        share_prefix: bool = True,
    ) -> None:
        if batch_size < 1 or workers < 0:
            raise ValueError(
                f"batch_size must be >= 1 and workers >= 0, got {batch_size} and {workers}"
            )
        if seed_video not in ("first_frame", "all_frames"):
            raise ValueError(f"seed_video must be first_frame or all_frames, got {seed_video!r}")
        if eval_time and not model.selects_here:
            raise ValueError(
                "eval_time must be off where another process runs the model, whose phases it does "
                "not tell"
            )
        self.model, self.model_name = model, model_name
        self.batch_size, self.workers = batch_size, workers
        self.journal, self.progress = journal, progress
        fingerprint = source = ""
        if journal is not None:
            fingerprint, source = model.fingerprint, source_of(type(model))
            describe(journal, model_name, model, source)
        self.preparer = RequestPreparer(model, fingerprint, seed_video, source)
        self._timer = PhaseTimer(clock_for(model)) if eval_time else None
        self.responder = Responder(model, self._timer, share_prefix=share_prefix)
        self.halving = Halving()
        self._store, self._signals = VisualStore(_STORE_BYTES), frozenset[str]()
        self._files: VisualFiles | None = None
        if visual_folder is not None and not eval_time and model.selects_here:
            self._files = VisualFiles(visual_folder, model)
        here = rank_once and not eval_time and model.selects_here
        self._rankings = Rankings(model.shape, active=here)
        self._known: dict[tuple[str, str], Answer] = {}

    @torch.inference_mode()
    @guarded_images()
    def run(
        self,
        requests: Sequence[Request],
        configs: Sequence[PruningConfig],
        leave_out: LeaveOut | None = None,
    ) -> Answers:
        """Return the answer to every request under every config.

        Deterministic: the answer to a request does not depend on the batch size, on the order of
        the requests or on the other requests, up to the rounding of sums in another order. Sampled
        answers (``temperature > 0``) are drawn with a seed made from the request.

        Several processes may answer the same requests into one journal: they share the work, and
        all return the same answers. Two processes may both answer a few requests; the journal
        counts these as repeated, and the result is the same.

        Args:
            requests: in any order; equal requests are answered once.
            configs: pruning configs; every request is answered under each.
            leave_out: called once, before the first answer, with the documents that cannot be used;
                these and all that it returns are left out under every config
                (`Answers.failed`). None: the first such document is an error.

        Raises:
            DocumentError: without ``leave_out``: a document whose images cannot be read, or whose
                context places another number of images.
            RequestError: one request alone does not fit into memory, or the model's logits about it
                are not finite; the message names it.
            ValueError: a config that the model cannot carry out.
            JournalError: an answer could not be written.
        """
        configs = tuple(dict.fromkeys(configs))
        for config in configs:
            self.model.check(config.pruning)
        self._need(configs)
        counts = Counts()
        halvings, ranked = self.halving.halvings, self._rankings.ranked
        reader = RequestReader(self.preparer, self._store, leave_out is None, self._stored)
        request_set = self._prepare(requests, reader, counts, leave_out)
        if self.journal is not None:
            experiment = str(self.journal.header.get("experiment", ""))
            request_list = request_set.request_list(
                self.model.fingerprint, self.model_name, experiment
            )
            write_request_list(self.journal.folder, request_list)
        pending = PendingAnswers(request_set.unique(), configs, self._known, self.journal, counts)
        self._answer_all(request_set, configs, pending, reader, counts)
        counts.requests = len(request_set.requests) * len(configs)
        counts.failed = len({(one.task, one.doc_id) for one in request_set.failed})
        counts.halvings = self.halving.halvings - halvings
        counts.ranked = self._rankings.ranked - ranked
        answers = Answers(request_set, dict(self._known), configs, counts)
        if self._timer is not None:
            log_times(answers)
        return answers

    def _prepare(
        self,
        requests: Sequence[Request],
        reader: RequestReader,
        counts: Counts,
        leave_out: LeaveOut | None,
    ) -> RequestSet:
        """Return the requests, prepared, without the documents that are left out."""
        request_set = RequestSet(requests)
        what, depth = f"{self.model_name}: reading images", 2 * self.workers
        with (
            _timed(counts, "survey"),
            Progress(what, len(request_set.different), self.progress) as progress,
            closing(ahead(reader.prepare, request_set.different, self.workers, depth)) as found,
        ):
            for request, prepared in zip(request_set.different, found, strict=True):
                request_set.add(request, prepared)
                progress.advance(1)
        if leave_out is not None:
            failed = {(one.task, one.doc_id) for one in request_set.failed}
            request_set.leave_out(failed | set(leave_out(request_set.failed)))
        counts.images = len(
            {image for one in request_set.prepared.values() for image in one.images}
        )
        return request_set

    def _answer_all(
        self,
        request_set: RequestSet,
        configs: Sequence[PruningConfig],
        pending: PendingAnswers,
        reader: RequestReader,
        counts: Counts,
    ) -> None:
        """Make the pending answers; add those that other processes write meanwhile."""
        requests = [one for one in request_set.unique() if one in pending]
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
                            request_set.fail(loaded.failed)
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
        """Answer a batch config by config, unless another process answers it."""
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
        """Let images be encoded with the signals that all configs need."""
        prunings = [config.pruning for config in configs]
        needs = self._signals.union(*(p.needs for p in prunings if p is not None))
        if needs != self._signals:
            # Images that were encoded without them must be encoded again.
            self._store, self._signals = VisualStore(_STORE_BYTES), needs

    def _stored(self, key: ImageKey) -> ImageTokens | None:
        """Return an image's visual tokens from the disk; called on worker threads."""
        return None if self._files is None else self._files.get(key, self._signals)

    def _encode(self, loaded: LoadedBatch, counts: Counts) -> None:
        """Encode a batch's images, and put their visual tokens into the store."""
        keys = [key for one in loaded.readable for key in keys_of(one)]
        stored = [key for key in self._store.missing(keys) if key in loaded.stored]
        self._store.put({key: loaded.stored[key] for key in stored})
        counts.stored += len(stored)
        missing, signals = self._store.missing(keys), self._signals

        def work(keys: Sequence[ImageKey]) -> list[ImageTokens]:
            images = [loaded.pixels[key] for key in keys]
            if self._timer is None:
                return self.model.encode(images, signals)
            return self._timer.encode(keys, lambda: self.model.encode(images, signals))

        with _timed(counts, "encode"), named_if_too_large(loaded.batch):
            for keys, tokens in self.halving.run("images", missing, work, self.batch_size):
                self._store.put(dict(zip(keys, tokens, strict=True)))
                if self._files is not None:
                    for key, one in zip(keys, tokens, strict=True):
                        self._files.put(key, signals, one)
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
        # The released forks apply the first row's choice to a whole batch; sampled answers need
        # a seed each.
        size = 1 if alone or any(one.generation.samples for one in requests) else len(requests)
        visual = self._store.take(key for one in requests for key in keys_of(one))
        view = requests[0].prompt.image_view if requests else None
        pruning = self._rankings.bind(config.pruning, view)
        respond = self.responder.bind(pruning, visual, config.label)
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
    """Yield loaded batches, and count the time spent waiting for them."""
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
