"""An answer's time by phase: vision, selection, prefill, decoding.

Nothing here runs without ``eval_time``. Selection is timed by a context that the model enters
around all selecting and merging (`otprune.pruning.Trace.watch`); the end of the prefill and the
decoding steps are seen by a hook on the model. On a GPU the points in time are CUDA events, which
do not synchronise until they are read.
"""

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

from otprune_lmms.engine.answers import Answers
from otprune_lmms.models.protocol import VisionLanguageModel

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

PHASES = ("vision", "select", "prefill", "decode")
"""Phases of an answer: vision (encoder and projector), selection, prefill (from token ids and
visual tokens to the first logits, without selection), decoding (all after the first logits)."""


class Clock(Protocol):
    """Points in time, and the seconds between two."""

    def mark(self) -> Any:
        """Return the point in time at which the work queued so far is done."""
        ...

    def seconds(self, begin: Any, end: Any) -> float:
        """Return the seconds between two points; waits until the second is reached."""
        ...


class HostClock:
    """Clock of a CPU, whose work is done when its call returns."""

    def mark(self) -> float:
        """Return the time now."""
        return time.perf_counter()

    def seconds(self, begin: float, end: float) -> float:
        """Return the difference."""
        return end - begin


class DeviceClock:
    """Clock of one GPU: events in its current stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> torch.cuda.Event:
        """Return an event at the end of the work queued so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def seconds(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Return the GPU's seconds between two events."""
        end.synchronize()
        return begin.elapsed_time(end) / 1e3


class WaitingClock(HostClock):
    """Clock of several GPUs, which have no common events: each mark waits for all of them."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self.devices = tuple(devices)

    def mark(self) -> float:
        """Return the time at which all devices are done."""
        for device in self.devices:
            torch.cuda.synchronize(device)
        return time.perf_counter()


def clock_for(model: VisionLanguageModel) -> Clock:
    """Return the clock of the devices that a model's weights are on."""
    devices = model.devices
    gpus = [one for one in devices if one.type == "cuda"]
    if not gpus:
        return HostClock()
    return DeviceClock(gpus[0]) if len(devices) == 1 else WaitingClock(gpus)


class BatchTiming:
    """The times of one batch in the language model.

    Attributes:
        dropped: whether any visual token was dropped or merged; if none was, the time of selection
            counts as prefill.
        select: seconds of selection, of the whole batch.
        prefill: seconds of the rest up to the first logits, of the whole batch.
        decode: seconds after the first logits, of the whole batch.
        steps: calls of the language model after the first.
    """

    def __init__(self, clock: Clock, writes: bool) -> None:
        self.clock, self._writes = clock, writes
        self.dropped = True
        self._selections: list[tuple[Any, Any]] = []
        self._inside = False
        self._calls: list[Any] = []
        self.select = self.prefill = self.decode = 0.0
        self.steps = 0

    @contextmanager
    def selecting(self) -> Iterator[None]:
        """Count the time in this context as selection; nested contexts are counted once."""
        if self._inside:
            yield
            return
        self._inside, begin = True, self.clock.mark()
        try:
            yield
        finally:
            self._selections.append((begin, self.clock.mark()))
            self._inside = False

    @contextmanager
    def watching(self, model: VisionLanguageModel) -> Iterator[None]:
        """Take the times of the calls of ``model`` in this context."""

        def called() -> None:
            self._calls.append(self.clock.mark())

        with model.on_call(called):
            begin = self.clock.mark()
            yield
        end = self.clock.mark()
        first = self._calls[0] if self._calls and self._writes else end
        self.decode = self.clock.seconds(first, end)
        if self.dropped:
            self.select = sum(self.clock.seconds(*one) for one in self._selections)
        self.prefill = self.clock.seconds(begin, first) - self.select
        self.steps = max(len(self._calls) - 1, 0) if self._writes else 0


class PhaseTimer:
    """Takes the times of encoding and answering.

    Args:
        clock: clock of the model's devices.

    Attributes:
        last: times of the last batch; None before the first.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.last: BatchTiming | None = None
        self._vision: dict[Any, float] = {}

    def encode(self, images: Sequence[Any], work: Callable[[], Result]) -> Result:
        """Return what ``work`` returns; note each image's share of its time."""
        begin = self.clock.mark()
        found = work()
        spent = self.clock.seconds(begin, self.clock.mark())
        self._vision |= dict.fromkeys(images, spent / len(images))
        return found

    @contextmanager
    def answer(self, model: VisionLanguageModel, writes: bool) -> Iterator[BatchTiming]:
        """Take the times of a batch; ``writes`` is whether texts are generated, not only scored."""
        timing = BatchTiming(self.clock, writes)
        with timing.watching(model):
            yield timing
        self.last = timing

    def shares(self, images: Sequence[Sequence[Any]]) -> list[dict[str, float]]:
        """Return the times by phase of each row of the last batch, in seconds.

        "vision" is the time of encoding the row's own images, each once, even if they were encoded
        for an earlier row or config; the other phases are equal shares of the batch.

        Args:
            images: keys of each row's images, as in `encode`.
        """
        timing, rows = self.last, len(images)
        if timing is None:
            return [{} for _ in images]
        rest = {name: getattr(timing, name) / rows for name in PHASES[1:]}
        return [
            {"vision": sum((self._vision.get(one, 0.0) for one in {*own}), 0.0), **rest}
            for own in images
        ]


def log_times(answers: Answers) -> None:
    """Log the times of a run's answers by phase, a line for each pruning config."""
    for config in answers.configs:
        found = [answers[config, request] for request in answers.requests]
        logger.info("%s", summary(config.label, [(one.phases, one.new_tokens) for one in found]))


def summary(name: str, timed: Sequence[tuple[Mapping[str, float], int]]) -> str:
    """Return a line with the median times of one pruning config's answers, in ms.

    Args:
        name: label of the config.
        timed: phases (seconds) and new tokens of each answer; phases are empty without times.
    """
    found = [(phases, new) for phases, new in timed if phases]
    if not found:
        return f"{name}: no times among {len(timed)} answers"
    shown = [
        f"{phase} {1e3 * statistics.median(phases.get(phase, 0.0) for phases, _ in found):.2f}"
        for phase in PHASES
    ]
    steps = sum(max(new - 1, 0) for _, new in found)
    each = 1e3 * sum(phases.get("decode", 0.0) for phases, _ in found) / steps if steps else 0.0
    return (
        f"{name}: times of {len(found)} of {len(timed)} answers, median ms: {', '.join(shown)} "
        f"({each:.2f} a token)"
    )
