"""Measure what settings cost, all of them in turn, against the unpruned model in the same run."""

import gc
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from otprune.cost import Convention
from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.engine import Answer, Request
from otprune_lmms.engine.batches import Batch, batches
from otprune_lmms.engine.memory import is_out_of_memory
from otprune_lmms.engine.phases import Clock, HostClock, PhaseTimer, clock_for
from otprune_lmms.engine.prepare import RequestPreparer, SeedVideo
from otprune_lmms.engine.progress import Progress
from otprune_lmms.engine.responder import Responder
from otprune_lmms.engine.visual_store import ImageKey, keys_of
from otprune_lmms.experiments.cost.counting import Counted, count_prefill, counted_flops
from otprune_lmms.experiments.cost.peak import Peak, peak_of
from otprune_lmms.experiments.cost.reducing import BatchTotals, Rounds, RunFields, costs
from otprune_lmms.images import refuse_truncated_images
from otprune_lmms.models.protocol import Pixels, VisionLanguageModel
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.costs import MeasuredCost

Visual = dict[ImageKey, ImageTokens]


class BenchError(RuntimeError):
    """What cannot be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class CostOptions:
    """How costs are measured.

    Attributes:
        batch_size: samples in one call of the language model.
        repeats: timed rounds over all samples and settings.
        warmup: rounds before that do not count.
        convention: formula of the multiply-adds.
        seed_video: see `Engine`.
        seed: of the order of the settings, which is drawn anew for every batch and round.

    Raises:
        ValueError: a number below the least that makes sense.
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
@refuse_truncated_images()
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
    """Return the cost of each setting, that of the unpruned model first.

    Every round takes every batch under every setting before the next batch, in an order drawn anew,
    so that whatever slows the machine down hits all of them alike. Answers are those of the engine:
    each batch is encoded, pruned and answered as there, with the tasks' own generation settings;
    what does not differ between settings (pixel values; visual tokens for the same signals) is
    timed once a batch and round, and counted for each.

    Args:
        model: the model.
        requests: the samples; generation requests.
        configs: settings; the unpruned model is measured whether it is among them or not.
        model_name: what the records call the model.
        options: how it is measured.
        progress: whether to show how far it is.
        clock: what times the device's work; by default that of the model's devices.

    Raises:
        ValueError: no requests, a kind of request that writes no answer, a setting that the model
            cannot carry out.
        BenchError: a batch that does not fit into memory.
        RequestError: broken images, a prompt that does not go with them.
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
    """A model, and what was found about it."""

    def __init__(
        self,
        model: VisionLanguageModel,
        name: str,
        options: CostOptions,
        clock: Clock | None,
    ) -> None:
        self.model, self.name, self.options = model, name, options
        self.clock = clock_for(self.model) if clock is None else clock
        self.watch = PhaseTimer(self.clock)
        self.responder = Responder(self.model, self.watch)
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
        """Return the samples in batches, as the engine makes them."""
        if not requests:
            raise ValueError("requests must hold at least one sample, got none")
        for request in requests:
            if request.kind != "generate":
                raise ValueError(f"{request.name} writes no answer: only those are measured")
        prepared = [self.preparer.prepare(request) for request in requests]
        return list(batches(prepared, self.options.batch_size))

    def examine(self, batch: Batch, configs: Sequence[PruningConfig]) -> None:
        """Count what a batch does under every setting; a first warm-up at the same time."""
        pixels = self._pixels(batch)
        # Once for all settings: it takes longer than many an answer.
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
        """Return seconds by phase of a batch under every setting, and the decoding steps."""
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
        """Count the times of a batch in one round."""
        for config in self.totals:
            rounds = self.rounds.setdefault(config, Rounds())
            rounds.add(place, len(batch), times[config])

    def _answering(self, batch: Batch, config: PruningConfig, visual: Visual) -> dict[str, float]:
        """Return the seconds of answering a batch, and its steps times the rows sharing them."""
        respond = self.responder.bind(config.pruning, visual)
        found: dict[str, float] = dict.fromkeys(("select", "prefill", "decode", "steps"), 0.0)
        for piece in pieces(batch, config):
            respond(piece)
            run = self.watch.last
            if run is None:
                raise BenchError("the language model was not called")
            for name in ("select", "prefill", "decode"):
                found[name] += getattr(run, name)
            found["steps"] += run.steps * len(piece)
        return found

    def _pixels(self, batch: Batch) -> list[tuple[ImageKey, Pixels]]:
        """Return the pixel values of all images of a batch, an image of two samples twice."""
        found = []
        for one in batch:
            pictures = self.preparer.images(one.request)
            for key, picture in zip(keys_of(one), pictures, strict=True):
                found.append((key, self.model.preprocess(picture, one.prompt.image_view)))
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
            respond = self.responder.bind(config.pruning, visual)
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
    """Yield what of a batch goes into one call, as in the engine."""
    alone = config.compat == "reference" or any(q.generation.samples for q in batch)
    size = 1 if alone else len(batch)
    for start in range(0, len(batch), size):
        yield batch[start : start + size]


def _signals(config: PruningConfig) -> frozenset[str]:
    pruning = config.pruning
    return frozenset() if pruning is None else pruning.needs
