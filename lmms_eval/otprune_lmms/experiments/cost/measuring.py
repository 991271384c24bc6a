"""Measures the cost of pruning configs, in turn with the unpruned model in the same run."""

import gc
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from otprune.cost import Convention
from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.documents import SeedVideo
from otprune_lmms.engine import Answer, Request
from otprune_lmms.engine.batches import Batch, batches
from otprune_lmms.engine.memory import is_out_of_memory
from otprune_lmms.engine.phases import Clock, HostClock, PhaseTimer, clock_for
from otprune_lmms.engine.prepare import RequestPreparer
from otprune_lmms.engine.progress import Progress
from otprune_lmms.engine.responder import Responder
from otprune_lmms.engine.visual_store import ImageKey, keys_of
from otprune_lmms.experiments.cost.counting import Counted, count_prefill, counted_flops
from otprune_lmms.experiments.cost.peak import Peak, peak_of
from otprune_lmms.experiments.cost.reducing import BatchTotals, Rounds, RunFields, costs
from otprune_lmms.images import guarded_images
from otprune_lmms.models.protocol import Pixels, VisionLanguageModel
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.costs import MeasuredCost

Visual = dict[ImageKey, ImageTokens]


class BenchError(RuntimeError):
    """A measurement that is not possible; the message says why."""


@dataclass(frozen=True, slots=True)
class CostOptions:
    """How costs are measured.

    Attributes:
        batch_size: requests in one call of the language model.
        repeats: timed rounds over all samples and configs.
        warmup: rounds before these, which are not timed.
        convention: formula of the multiply-adds.
        seed_video: see `Engine`.
        seed: seed of the order of the configs, which is drawn for every batch and round.

    Raises:
        ValueError: a batch size or repeats below 1, a warm-up below 0.
    """

    batch_size: int = 1
    repeats: int = 5
    warmup: int = 1
    convention: Convention = "3ndm"
    seed_video: SeedVideo = "first_frame"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("batch_size", 1), ("repeats", 1), ("warmup", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


@torch.inference_mode()
@guarded_images()
def measure(
    model: VisionLanguageModel,
    requests: Sequence[Request],
    configs: Sequence[PruningConfig],
    *,
    model_name: str,
    options: CostOptions | None = None,
    progress: bool = True,
    clock: Clock | None = None,
) -> list[MeasuredCost]:
    """Return the cost of each pruning config, that of the unpruned model first.

    Every round takes each batch under all configs, in a random order, before the next batch, so
    that a slow phase of the machine affects all configs alike. Batches are encoded, pruned and
    answered as by the engine, with the tasks' own generation settings. What several configs share
    (pixel values; visual tokens with the same signals) is timed once for each batch and round.

    Args:
        model: the model.
        requests: generation requests.
        configs: pruning configs; the unpruned model is added if it is not among them.
        model_name: the model's name in the records.
        options: how costs are measured.
        progress: whether to show progress.
        clock: clock of the device's work; None for that of the model's devices.

    Raises:
        ValueError: no requests, a loglikelihood request, or the model does not support a config.
        BenchError: a batch does not fit into memory.
        RequestError: an image cannot be read, or a context places another number of images.
    """
    options = CostOptions() if options is None else options
    bench = _Bench(model, model_name, options, clock)
    configs = tuple(dict.fromkeys([PruningConfig.make(), *configs]))
    for config in configs:
        bench.model.check(config.pruning)
    work = bench.batches(requests)
    rounds = options.warmup + options.repeats
    with Progress(f"{model_name}: cost", (rounds + 1) * len(work), progress) as shown:
        for batch in work:
            bench.examine(batch, configs)
            shown.advance(1)
        for number in range(rounds):
            for place, batch in enumerate(work):
                times = bench.time(batch, configs)
                if number >= options.warmup:
                    bench.keep(place, batch, times)
                shown.advance(1)
    return costs(bench.run_fields(), bench.totals, bench.rounds)


class _Bench:
    """Measures one model, and holds its counts and times."""

    def __init__(
        self,
        model: VisionLanguageModel,
        name: str,
        options: CostOptions,
        clock: Clock | None,
    ) -> None:
        self.model, self.name, self.options = model, name, options
        self.clock = clock_for(self.model) if clock is None else clock
        self.timer = PhaseTimer(self.clock)
        self.responder = Responder(self.model, self.timer)
        self.preparer = RequestPreparer(self.model, "", options.seed_video)
        self.draw = random.Random(options.seed)
        self.totals: dict[PruningConfig, BatchTotals] = {}
        self.rounds: dict[PruningConfig, Rounds] = {}
        self.gpus = [one for one in model.devices if one.type == "cuda"]

    def run_fields(self) -> RunFields:
        """Return what all records of this run have in common."""
        return RunFields(
            self.name,
            self.options.batch_size,
            self.options.convention,
            dtype=str(self.model.dtype).removeprefix("torch."),
            attention=self.model.attention,
        )

    def batches(self, requests: Sequence[Request]) -> list[Batch]:
        """Return the requests in batches, as the engine forms them."""
        if not requests:
            raise ValueError("requests must hold at least one sample, got none")
        for request in requests:
            if request.kind != "generate":
                raise ValueError(f"{request.name} generates no answer: only generation is measured")
        prepared = [self.preparer.prepare(request) for request in requests]
        return list(batches(prepared, self.options.batch_size))

    def examine(self, batch: Batch, configs: Sequence[PruningConfig]) -> None:
        """Count a batch under every config; this also warms up the device."""
        pixels = self._pixels(batch)
        # Once for all configs: it may take longer than an answer.
        gc.collect()
        encoded: dict[frozenset[str], tuple[Visual, int]] = {}
        for config in configs:
            signals = _signals(config)
            with self._fitting(batch, config):
                if signals not in encoded:
                    encoded[signals] = counted_flops(lambda s=signals: self._visual(pixels, s))
                visual, vision_flops = encoded[signals]
                counts = [self._counted(piece, config, visual) for piece in pieces(batch, config)]
                peak, answers = self._peak(batch, config, pixels)
            self.totals.setdefault(config, BatchTotals()).add(counts, vision_flops, peak, answers)

    def time(
        self, batch: Batch, configs: Sequence[PruningConfig]
    ) -> dict[PruningConfig, dict[str, float]]:
        """Return a batch's seconds by phase and its decoding steps, under every config."""
        host = HostClock()
        begin = host.mark()
        pixels = self._pixels(batch)
        for one in batch:
            self.model.token_ids(one.prompt)
        preprocess = host.seconds(begin, host.mark())
        encoded: dict[frozenset[str], tuple[Visual, float]] = {}
        found: dict[PruningConfig, dict[str, float]] = {}
        order = list(configs)
        self.draw.shuffle(order)
        for config in order:
            signals = _signals(config)
            with self._fitting(batch, config):
                if signals not in encoded:
                    begin = self.clock.mark()
                    visual = self._visual(pixels, signals)
                    encoded[signals] = visual, self.clock.seconds(begin, self.clock.mark())
                visual, vision = encoded[signals]
                answering = self._answering(batch, config, visual)
            found[config] = {"preprocess": preprocess, "vision": vision, **answering}
        return found

    def keep(self, place: int, batch: Batch, times: dict[PruningConfig, dict[str, float]]) -> None:
        """Add the times of a batch in one round."""
        for config in self.totals:
            rounds = self.rounds.setdefault(config, Rounds())
            rounds.add(place, len(batch), times[config])

    def _answering(self, batch: Batch, config: PruningConfig, visual: Visual) -> dict[str, float]:
        """Return the seconds of answering a batch, and its decoding steps times their rows."""
        respond = self.responder.bind(config.pruning, visual, config.label)
        found: dict[str, float] = dict.fromkeys(("select", "prefill", "decode", "steps"), 0.0)
        for piece in pieces(batch, config):
            respond(piece)
            run = self.timer.last
            if run is None:
                raise BenchError("the language model was not called")
            for name in ("select", "prefill", "decode"):
                found[name] += getattr(run, name)
            found["steps"] += run.steps * len(piece)
        return found

    def _pixels(self, batch: Batch) -> list[tuple[ImageKey, Pixels]]:
        """Return the pixel values of a batch's images; an image of two requests occurs twice."""
        found = []
        for one in batch:
            images = self.preparer.images(one.request)
            for key, image in zip(keys_of(one), images, strict=True):
                found.append((key, self.model.preprocess(image, one.prompt.image_view)))
        return found

    def _visual(self, pixels: Sequence[tuple[ImageKey, Pixels]], signals: frozenset[str]) -> Visual:
        if not pixels:
            return {}
        tokens = self.model.encode([values for _, values in pixels], signals)
        return dict(zip((key for key, _ in pixels), tokens, strict=True))

    def _counted(self, piece: Batch, config: PruningConfig, visual: Visual) -> Counted:
        inputs = [self.responder.model_input(one, visual) for one in piece]
        text = sum(self.model.text_tokens(one.prompt) for one in piece)
        return count_prefill(self.model, inputs, text, config.pruning, self.options.convention)

    def _peak(
        self, batch: Batch, config: PruningConfig, pixels: Sequence[tuple[ImageKey, Pixels]]
    ) -> tuple[Peak, list[Answer]]:
        """Return the peak memory of encoding and answering a batch, and its answers."""
        answers: list[Answer] = []

        def work() -> None:
            visual = self._visual(pixels, _signals(config))
            respond = self.responder.bind(config.pruning, visual, config.label)
            for piece in pieces(batch, config):
                answers.extend(respond(piece))

        return peak_of(work, self.gpus), answers

    @contextmanager
    def _fitting(self, batch: Batch, config: PruningConfig) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise BenchError(
                f"{self.name}: {len(batch)} samples at once do not fit into memory under "
                f"{config.label}; give a smaller batch size"
            ) from error


def pieces(batch: Batch, config: PruningConfig) -> Iterator[Batch]:
    """Yield the parts of a batch that go into one call, as in the engine."""
    alone = config.compat == "reference" or any(q.generation.samples for q in batch)
    size = 1 if alone else len(batch)
    for start in range(0, len(batch), size):
        yield batch[start : start + size]


def _signals(config: PruningConfig) -> frozenset[str]:
    pruning = config.pruning
    return frozenset() if pruning is None else pruning.needs
