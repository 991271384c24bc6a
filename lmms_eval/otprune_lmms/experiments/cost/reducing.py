"""Averages single times and counts to the cost of a pruning config."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from otprune_lmms.engine.requests import Answer
from otprune_lmms.experiments.cost.counting import Counted
from otprune_lmms.experiments.cost.peak import Peak
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.costs import PARTS, MeasuredCost, Speedup, Spread

_QUARTILES = (0.5, 0.25, 0.75)
_DRAWS = 2000
_SEED = 0


@dataclass
class BatchTotals:
    """Counts that are equal in every round, summed over the batches; the peak is the largest."""

    visual: int = 0
    kept: int = 0
    text: int = 0
    kv_bytes: int = 0
    flops: int = 0
    multiply_adds: int = 0
    vision_flops: int = 0
    new_tokens: int = 0
    peak: int = 0
    added: int | None = 0

    def add(
        self, counts: Sequence[Counted], vision_flops: int, peak: Peak, answers: Sequence[Answer]
    ) -> None:
        """Add a batch."""
        for one in counts:
            for name in ("visual", "kept", "text", "kv_bytes", "flops", "multiply_adds"):
                setattr(self, name, getattr(self, name) + getattr(one, name))
        self.vision_flops += vision_flops
        self.new_tokens += sum(answer.new_tokens for answer in answers)
        self.peak = max(self.peak, peak.whole)
        known = self.added is not None and peak.added is not None
        self.added = max(self.added or 0, peak.added or 0) if known else None


@dataclass
class Rounds:
    """Times of one pruning config.

    Attributes:
        sizes: number of requests of each batch.
        seconds: by batch, one mapping for each round: seconds of each of `PARTS`, and "steps", the
            decoding steps times the rows that shared them.
    """

    sizes: dict[int, int] = field(default_factory=dict)
    seconds: dict[int, list[Mapping[str, float]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, batch: int, size: int, seconds: Mapping[str, float]) -> None:
        """Add the times of a batch in one round."""
        self.sizes[batch] = size
        self.seconds[batch].append(seconds)

    def spread(self, *parts: str) -> Spread:
        """Return a sample's milliseconds in some parts together."""
        times = {
            batch: [sum(one[part] for part in parts) / self.sizes[batch] for one in many]
            for batch, many in self.seconds.items()
        }
        return self._spread(times)

    def per_token(self) -> Spread:
        """Return milliseconds of a decoding step for one row; None without any step."""
        times = {
            batch: [one["decode"] / one["steps"] for one in many]
            for batch, many in self.seconds.items()
            if all(one["steps"] for one in many)
        }
        return self._spread(times)

    def _spread(self, times: Mapping[int, Sequence[float]]) -> Spread:
        if not times:
            return Spread(None, None, None)
        values = np.array([np.quantile(many, _QUARTILES) for many in times.values()])
        sizes = [self.sizes[batch] for batch in times]
        middle, low, high = 1e3 * np.average(values, axis=0, weights=sizes)
        return Spread(float(middle), float(low), float(high))


@dataclass(frozen=True, slots=True)
class RunFields:
    """Fields that all records of a run have in common; see `MeasuredCost`."""

    model: str
    batch: int
    convention: str
    dtype: str
    attention: str


def costs(
    run: RunFields,
    totals: Mapping[PruningConfig, BatchTotals],
    rounds: Mapping[PruningConfig, Rounds],
) -> list[MeasuredCost]:
    """Return the cost of each config; ratios are to the first one, the unpruned model."""
    plain = next(iter(totals))
    return [
        _cost(run, config, (totals[config], totals[plain]), (rounds[config], rounds[plain]))
        for config in totals
    ]


def _cost(
    run: RunFields,
    config: PruningConfig,
    totals: tuple[BatchTotals, BatchTotals],
    rounds: tuple[Rounds, Rounds],
) -> MeasuredCost:
    """Return the cost of a setting; of totals and rounds the second are the unpruned model's."""
    (own, plain), (times, plain_times) = totals, rounds
    samples = sum(times.sizes.values())
    return MeasuredCost(
        model=run.model,
        config=config.columns(),
        batch=run.batch,
        visual_tokens=own.visual / samples,
        kept_tokens=own.kept / samples,
        text_tokens=own.text / samples,
        preprocess=times.spread("preprocess"),
        vision=times.spread("vision"),
        select=times.spread("select"),
        prefill=times.spread("prefill"),
        decode=times.spread("decode"),
        decode_per_token=times.per_token(),
        total=times.spread(*PARTS),
        prefill_ratio=_ratio(times, plain_times, "prefill"),
        total_ratio=_ratio(times, plain_times, *PARTS),
        prefill_speedup=speedup(times, plain_times, "select", "prefill"),
        answer_speedup=speedup(times, plain_times, *PARTS),
        select_share=_share(times, plain_times),
        kv_bytes=own.kv_bytes / samples,
        peak_bytes=own.peak,
        added_bytes=own.added,
        multiply_adds=own.multiply_adds / samples,
        convention=run.convention,
        multiply_adds_ratio=own.multiply_adds / plain.multiply_adds,
        counted_flops=own.flops / samples,
        counted_ratio=own.flops / plain.flops,
        vision_flops=own.vision_flops / samples,
        new_tokens=own.new_tokens / samples,
        samples=samples,
        repeats=max(map(len, times.seconds.values())),
        dtype=run.dtype,
        attention=run.attention,
    )


def _ratio(own: Rounds, plain: Rounds, *parts: str) -> float | None:
    above, below = own.spread(*parts).middle, plain.spread(*parts).middle
    return None if above is None or not below else above / below


def speedup(own: Rounds, plain: Rounds, *parts: str) -> Speedup:
    """Return how many times as fast as the unpruned model a config is in some parts together.

    As the ratios of the page: medians over the rounds of each batch, then the mean over samples.
    The interval is a percentile bootstrap (2000 draws) of batches and, within them, of rounds; both
    configs of a round are drawn together, since they took turns there. Its width comes from the
    machine and from the samples.
    """
    sides = (own, plain)
    times = [
        np.array(
            [[sum(one[part] for part in parts) for one in side.seconds[batch]] for side in sides]
        )
        for batch in own.seconds
    ]
    if not times or not all((some > 0).all() for some in times):
        return Speedup(None, None, None)
    fast, slow = np.array([np.median(some, axis=1) for some in times]).sum(axis=0)
    draw = np.random.default_rng(_SEED)
    weights = draw.multinomial(len(times), np.full(len(times), 1 / len(times)), size=_DRAWS)
    sums = np.zeros((_DRAWS, 2))
    for place, some in enumerate(times):
        rounds = draw.integers(some.shape[1], size=(_DRAWS, some.shape[1]))
        sums += weights[:, place, None] * np.median(some[:, rounds], axis=2).T
    low, high = np.quantile(sums[:, 1] / sums[:, 0], (0.025, 0.975))
    return Speedup(float(slow / fast), float(low), float(high))


def _share(own: Rounds, plain: Rounds) -> float | None:
    """Return selection time / saved prefill time; None without either."""
    select, prefill = own.spread("select").middle, own.spread("prefill").middle
    before = plain.spread("prefill").middle
    if not select or prefill is None or before is None:
        return None
    saved = before - prefill
    return select / saved if saved > 0 else None
