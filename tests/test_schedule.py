from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otprune.cost import DecoderShape, prefill_multiply_adds
from otprune.schedule import Point, parse_schedule, solve, tokens_by_layer

ONE_LAYER = DecoderShape(hidden=4096, feed_forward=11008, layers=1, heads=32)


def flops(tokens: int) -> float:
    return float(prefill_multiply_adds(ONE_LAYER, tokens, "3ndm"))


COSTS = {"average": float, "flops": flops}


@st.composite
def schedules(draw):
    """Points with ascending layers and shares above 0 that do not grow, of a model of 2..32."""
    layers = draw(st.integers(2, 32))
    count = draw(st.integers(1, min(3, layers - 1)))
    where = draw(st.lists(st.integers(1, layers - 1), min_size=count, max_size=count, unique=True))
    shares = draw(st.lists(st.integers(1, 64), min_size=count, max_size=count))
    pairs = zip(sorted(where), sorted(shares, reverse=True), strict=True)
    return layers, tuple(Point(layer, share / 64) for layer, share in pairs)


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("2:64", [(2, 64)]),
        ("2:0.5", [(2, 0.5)]),
        ("16:0", [(16, 0)]),
        ("0:1.0/12:0.5", [(0, 1.0), (12, 0.5)]),
        ("7:0.875/9:0.625/12:0.125", [(7, 0.875), (9, 0.625), (12, 0.125)]),
        ("2:300/6:200/15:110", [(2, 300), (6, 200), (15, 110)]),
        ("2:0.5/6:64", [(2, 0.5), (6, 64)]),
        ("3:8/5:8", [(3, 8), (5, 8)]),
    ],
)
def test_a_schedule_is_read_as_layers_with_shares_or_counts(text, points):
    read = parse_schedule(text)
    assert [(p.layer, p.amount) for p in read] == points
    assert [type(p.amount) for p in read] == [type(amount) for _, amount in points]


@pytest.mark.parametrize(
    "text",
    ["", "2", "2:", ":0.5", "2:half", "2:0.5/", "-1:0.5", "2:1.5", "2:-3", "2:-0.5", "2:nan.",
     "1.5:0.5", "2:0.5:3", "2,0.5"],
)  # fmt: skip
def test_what_is_no_schedule_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"as in 7:0.875/9:0.625/12:0.125; got"):
        parse_schedule(text)


@pytest.mark.parametrize("text", ["3:0.5/3:0.25", "9:0.5/7:0.25", "3:0.25/9:0.5", "3:10/9:11"])
def test_layers_must_ascend_and_amounts_must_not_grow(text):
    with pytest.raises(ValueError, match="ascending layers and fewer tokens, got"):
        parse_schedule(text)


def test_a_lowest_layer_can_be_asked_for():
    assert parse_schedule("1:0.5", least=1) == (Point(1, 0.5),)
    with pytest.raises(ValueError, match="schedule must have layers >= 1, got '0:0.5'"):
        parse_schedule("0:0.5", least=1)


@pytest.mark.parametrize(("share", "count"), [(0.9, 518), (0.17, 97), (0.6, 345), (1 / 9, 64)])
def test_a_share_is_cut_to_a_whole_number(share, count):
    assert Point(2, share).count(576) == count
    assert Point(2, 64).count(576) == 64


def test_tokens_enter_a_layer_of_the_schedule_pruned():
    found = tokens_by_layer({7: 504, 9: 360, 12: 72}, 576, 32)
    assert found == [576] * 7 + [504] * 2 + [360] * 3 + [72] * 20


def test_a_count_above_what_is_left_changes_nothing():
    assert tokens_by_layer({1: 700, 2: 50, 3: 60}, 100, 5) == [100, 100, 50, 50, 50]


def test_merged_tokens_are_counted_from_their_layer_on_but_not_before_the_model():
    found = tokens_by_layer({0: 80, 2: 50, 4: 20}, 100, 6, lambda dropped: dropped // 10)
    assert found == [80, 80, 53, 53, 23, 23]


@pytest.mark.parametrize("match", COSTS)
@given(data=st.data(), n=st.integers(2, 60))
def test_one_point_gets_the_most_tokens_that_the_target_pays_for(match, data, n):
    layers = data.draw(st.integers(2, 32))
    layer = data.draw(st.integers(0, layers - 1))
    cost = COSTS[match]
    totals = [sum(map(cost, tokens_by_layer({layer: k}, n, layers))) for k in range(1, n + 1)]
    target = data.draw(st.floats(totals[0], 1.1 * totals[-1]))
    best = max(k for k, total in enumerate(totals, start=1) if total <= target)
    assert solve([Point(layer, 0.5)], n, layers, target, cost) == {layer: best}


def total_of(counts, n, layers, cost) -> float:
    return sum(map(cost, tokens_by_layer(counts, n, layers)))


def with_one_more(points, counts, n) -> list[dict[int, int]]:
    """Counts with one more token at a point where the schedule allows it, the last point first."""
    found, limit = [], n
    for point in points:
        if counts[point.layer] < limit:
            found.insert(0, {**counts, point.layer: counts[point.layer] + 1})
        limit = counts[point.layer]
    return found


def scaled_by_hand(points, n, layers, target, cost) -> dict[int, int]:
    """The same rule, trying every factor at which a count changes."""
    counts = {p.layer: max(1, p.count(n)) for p in points}
    factors = {Fraction(j, c) for c in counts.values() for j in range(n + 1)}
    best = {}
    for factor in sorted(factors):
        trial = {layer: min(n, max(1, int(factor * c))) for layer, c in counts.items()}
        if total_of(trial, n, layers, cost) <= target:
            best = trial
    while True:
        affordable = [
            more
            for more in with_one_more(points, best, n)
            if total_of(more, n, layers, cost) <= target
        ]
        if not affordable:
            return best
        best = affordable[0]


@pytest.mark.parametrize("match", COSTS)
@given(schedule=schedules(), n=st.integers(2, 60), where=st.floats(0, 1.05))
def test_amounts_are_scaled_by_the_largest_factor_that_the_target_pays_for(
    match, schedule, n, where
):
    layers, points = schedule
    cost = COSTS[match]
    least, most = bounds(points, n, layers, cost)
    target = least + where * (most - least)
    found = solve(points, n, layers, target, cost)
    assert found == scaled_by_hand(points, n, layers, target, cost)


def bounds(points, n, layers, cost) -> tuple[float, float]:
    least = total_of({p.layer: 1 for p in points}, n, layers, cost)
    return least, layers * cost(n)


@pytest.mark.parametrize("match", COSTS)
@given(schedule=schedules(), n=st.integers(2, 700), where=st.floats(0, 1))
def test_the_total_is_never_above_the_target_and_within_one_token_of_it(match, schedule, n, where):
    layers, points = schedule
    cost = COSTS[match]
    least, most = bounds(points, n, layers, cost)
    target = least + where * (most - least)
    found = solve(points, n, layers, target, cost)
    assert total_of(found, n, layers, cost) <= target
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert all(1 <= k <= n for k in found.values())
    for more in with_one_more(points, found, n):
        assert total_of(more, n, layers, cost) > target


@pytest.mark.parametrize("match", COSTS)
@given(
    schedule=schedules(),
    n=st.integers(2, 700),
    where=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_larger_target_never_costs_less_by_more_than_a_token(match, schedule, n, where):
    layers, points = schedule
    cost = COSTS[match]
    least, most = bounds(points, n, layers, cost)
    small, large = (
        solve(points, n, layers, least + part * (most - least), cost) for part in sorted(where)
    )
    cheaper, dearer = (total_of(counts, n, layers, cost) for counts in (small, large))
    one_more = [total_of(more, n, layers, cost) for more in with_one_more(points, large, n)]
    assert cheaper <= dearer or cheaper < min(one_more)


@given(schedule=schedules(), n=st.integers(2, 700))
def test_what_everything_costs_keeps_everything(schedule, n):
    layers, points = schedule
    found = solve(points, n, layers, layers * flops(n), flops)
    assert set(found.values()) == {n}


def test_a_target_below_one_token_at_every_point_is_refused_with_what_the_least_would_be():
    points = parse_schedule("8:0.5/16:0.25")
    assert solve(points, 576, 32, 8 * 576 + 24, float) == {8: 1, 16: 1}
    with pytest.raises(
        ValueError, match=r"layers 8, 16 of 32 pruned to a single token, 144.8 of 576 tokens"
    ):
        solve(points, 576, 32, 8 * 576 + 23, float)


def test_merged_tokens_count_towards_the_target():
    points = parse_schedule("2:0.5/6:0.25")

    def appended(dropped: int) -> int:
        return dropped // 8

    found = solve(points, 200, 32, 32 * 60, float, appended)
    assert sum(tokens_by_layer(found, 200, 32, appended)) <= 32 * 60
    assert sum(tokens_by_layer(found, 200, 32)) < sum(tokens_by_layer(found, 200, 32, appended))
