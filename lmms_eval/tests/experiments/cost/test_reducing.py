"""From times to a line: medians, quartiles, means, ratios."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otprune_lmms.engine import Answer
from otprune_lmms.experiments.cost.counting import Counted
from otprune_lmms.experiments.cost.peak import Peak
from otprune_lmms.experiments.cost.reducing import BatchTotals, Rounds, RunFields, costs, speedup
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.costs import COLUMNS, PARTS, Speedup

ABOUT = RunFields("m", 2, "3ndm", "float32", "sdpa")
CONFIGS = (
    PruningConfig(),
    PruningConfig.make("otprune", 0.1),
    PruningConfig.make("random", k=3, layer=2, seed=1),
)
SECONDS = st.floats(0, 1e3, allow_nan=False)


def seconds(**given: float) -> dict[str, float]:
    return {**dict.fromkeys(PARTS, 0.0), "steps": 4.0, **given}


def rounds(*batches: tuple[int, list[dict[str, float]]]) -> Rounds:
    found = Rounds()
    for number, (size, many) in enumerate(batches):
        for one in many:
            found.add(number, size, one)
    return found


def facts(flops: int = 10, multiply_adds: int = 100, **others) -> BatchTotals:
    found = BatchTotals()
    counted = Counted(8, 6, 4, 12, flops, multiply_adds)
    given = {"vision_flops": 30, "peak": Peak(7, 5), "answers": [Answer("x", new_tokens=3)]}
    found.add([counted], **{**given, **others})
    return found


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.lists(SECONDS, min_size=1, max_size=6)),
        min_size=1,
        max_size=5,
    )
)
def test_a_spread_is_the_samples_mean_of_each_batchs_quartiles(batches):
    found = rounds(*((size, [seconds(prefill=t) for t in many]) for size, many in batches))
    spread = found.spread("prefill")
    samples = [
        1e3 * np.percentile(many, (25, 50, 75)) / size
        for size, many in batches
        for _ in range(size)
    ]
    want = np.mean(samples, axis=0)
    assert (spread.low, spread.middle, spread.high) == pytest.approx(tuple(want), abs=1e-9)
    assert spread.low <= spread.middle + 1e-9
    assert spread.middle <= spread.high + 1e-9


@settings(deadline=None)
@given(st.lists(SECONDS, min_size=5, max_size=5))
def test_in_one_round_the_phases_are_the_total(times):
    found = rounds((3, [seconds(**dict(zip(PARTS, times, strict=True)))]))
    each = [found.spread(part).middle for part in PARTS]
    assert found.spread(*PARTS).middle == pytest.approx(sum(each), abs=1e-6)


def test_a_total_is_added_up_before_its_median_is_taken():
    found = rounds((1, [seconds(vision=1, prefill=0), seconds(vision=0, prefill=3), seconds()]))
    assert found.spread("vision").middle == 0
    assert found.spread("vision", "prefill").middle == 1000


def test_one_slow_round_moves_no_median():
    plain = [seconds(prefill=2.0)] * 4
    assert rounds((1, [*plain, seconds(prefill=900.0)])).spread("prefill").middle == 2000


def test_a_token_is_a_step_of_the_rows_that_share_it():
    found = rounds((2, [seconds(decode=6.0, steps=12.0)]), (2, [seconds(decode=9.0, steps=0.0)]))
    assert found.per_token().middle == 500, "a batch that ended at once says nothing about steps"
    assert rounds((2, [seconds(decode=9.0, steps=0.0)])).per_token().middle is None


def lines(pruned: dict[str, float], plain: dict[str, float]) -> dict:
    both = {
        CONFIGS[0]: rounds((2, [seconds(**plain)] * 2)),
        CONFIGS[1]: rounds((2, [seconds(**pruned)] * 2)),
    }
    known = {CONFIGS[0]: facts(), CONFIGS[1]: facts(flops=5, multiply_adds=20)}
    return {one.setting: one for one in costs(ABOUT, known, both)}


def test_ratios_are_to_the_unpruned_model():
    found = lines({"prefill": 1.0, "select": 0.5, "vision": 2.5}, {"prefill": 5.0, "vision": 3.0})
    base, own = found["unpruned"], found["otprune-0.1"]
    assert (base.prefill_ratio, base.total_ratio, base.multiply_adds_ratio) == (1, 1, 1)
    assert (own.prefill_ratio, own.total_ratio) == (0.2, 0.5)
    assert (own.multiply_adds_ratio, own.counted_ratio) == (0.2, 0.5)
    assert own.select_share == pytest.approx(0.5 / 4)
    assert base.select_share is None
    assert (own.visual_tokens, own.kept_tokens, own.text_tokens) == (4, 3, 2)
    assert (own.kv_bytes, own.vision_flops, own.new_tokens, own.samples) == (6, 15, 1.5, 2)
    assert (own.peak_bytes, own.added_bytes) == (7, 5)
    assert (own.repeats, own.convention, own.dtype) == (2, "3ndm", "float32")


@pytest.mark.parametrize(
    ("pruned", "share"),
    [
        ({"prefill": 6.0, "select": 1.0}, None),
        ({"prefill": 5.0, "select": 1.0}, None),
        ({"prefill": 1.0, "select": 0.0}, None),
        ({"prefill": 3.0, "select": 4.0}, 2.0),
    ],
)
def test_selection_takes_a_share_of_what_is_saved_only_where_something_is(pruned, share):
    assert lines(pruned, {"prefill": 5.0})["otprune-0.1"].select_share == share


def test_the_largest_batch_is_the_peak_and_an_unknown_one_stays_unknown():
    found = facts(peak=Peak(100, 3))
    found.add([], 0, Peak(50, 9), [])
    assert (found.peak, found.added) == (100, 9)
    found.add([], 0, Peak(60, None), [])
    found.add([], 0, Peak(60, 4), [])
    assert (found.peak, found.added) == (100, None)


def test_a_line_has_all_columns_and_no_other():
    configs = dict.fromkeys(CONFIGS)
    times = {config: rounds((1, [seconds(select=1.0)])) for config in configs}
    found = costs(ABOUT, {config: facts() for config in configs}, times)
    for one, config in zip(found, CONFIGS, strict=True):
        assert tuple(one.plain()) == COLUMNS
        assert one.config == config.columns()
        assert one.plain()["select_ms"] == 1000
    assert found[2].plain()["row"] == "random-k3-layer2"
    assert found[2].setting == CONFIGS[2].label
    assert found[2].plain()["k"] == 3
    assert found[2].plain()["keep_ratio"] is None
    times = ("preprocess_ms", "vision_ms", "select_ms", "prefill_ms", "decode_ms_per_token")
    for name in (*times, "total_ms"):
        assert {name, f"{name}_low", f"{name}_high"} <= set(COLUMNS)
    assert len(COLUMNS) == len(set(COLUMNS))


def two_batches(factor, noise=0.0):
    """Five rounds of two batches; ``factor`` times the seconds of the unpruned model."""
    drift = np.random.default_rng(3).uniform(1 - noise, 1 + noise, (2, 5))
    return rounds(
        *(
            (2, [seconds(select=0.2 * t * factor, prefill=t * factor) for t in many])
            for many in drift
        )
    )


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.5, "faster"), (2.0, "slower"), (1.0, "no difference")]
)
def test_a_speedup_says_faster_or_slower_where_the_rounds_do(factor, verdict):
    # Both had the same drift in each round, so the drift cancels.
    found = speedup(two_batches(factor, 0.5), two_batches(1.0, 0.5), "select", "prefill")
    assert found.verdict == verdict
    assert (found.times, found.low, found.high) == pytest.approx((1 / factor,) * 3)


def test_a_speedup_within_the_rounds_spread_is_no_difference():
    noisy = np.random.default_rng(5).uniform(0.5, 1.5, (2, 9))
    own = rounds(*((1, [seconds(prefill=t) for t in many]) for many in noisy))
    plain = rounds(*((1, [seconds(prefill=t) for t in many[::-1]]) for many in noisy))
    found = speedup(own, plain, "prefill")
    assert found.low < 1 < found.high
    assert found.verdict == "no difference"


def test_one_batch_weighs_by_its_seconds():
    # 1 s and 9 s unpruned; the second batch alone is twice as fast.
    plain = rounds((1, [seconds(prefill=1.0)]), (1, [seconds(prefill=9.0)]))
    own = rounds((1, [seconds(prefill=1.0)]), (1, [seconds(prefill=4.5)]))
    found = speedup(own, plain, "prefill")
    assert found.times == pytest.approx(10 / 5.5)
    assert (found.low, found.high) == pytest.approx((1, 2))


def test_without_times_there_is_no_speedup():
    empty = rounds((1, [seconds()]))
    assert speedup(empty, empty, "prefill") == Speedup(None, None, None)
    assert speedup(Rounds(), Rounds(), "prefill").verdict is None
