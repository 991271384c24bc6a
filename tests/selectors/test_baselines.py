"""The baselines against their definitions, evaluated the slow way."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import brute_greedy, features, real_tokens, token_matrices
from otprune import Signals, make_pruner
from otprune.kernels import unit_rows
from otprune.wasserstein import coverage

tall = token_matrices(max_n=14, min_n=3).filter(lambda v: v.shape[1] >= 3)


def units_of(tokens):
    return unit_rows(tokens.double())


@given(tokens=tall, data=st.data())
def test_divprune_is_the_max_min_rule(tokens, data):
    k = data.draw(st.integers(1, len(tokens)))
    distance = 1 - units_of(tokens) @ units_of(tokens).T
    n = len(tokens)
    isolation = [min(float(distance[i, j]) for j in range(n) if j != i) for i in range(n)]
    picks = [max(range(n), key=isolation.__getitem__)]
    while len(picks) < k:
        rest = [i for i in range(n) if i not in picks]
        picks.append(max(rest, key=lambda i: min(float(distance[i, s]) for s in picks)))
    found = make_pruner("divprune", accumulate="float64").rank(tokens, k).tolist()
    if n > 2:
        # The most isolated pair ties in isolation whenever each is the other's nearest.
        assert isolation[found[0]] == pytest.approx(max(isolation), abs=1e-12)
    if found[0] == picks[0]:
        assert found == picks


def test_divprune_row_by_row_equals_divprune_with_all_distances(monkeypatch):
    import otprune.selectors.divprune as module

    tokens = torch.tensor(features("outlier", 700, 48, 3))
    pruner = make_pruner("divprune", accumulate="float64")
    held = pruner.rank(tokens, 60).tolist()
    monkeypatch.setattr(module, "_FULL_UP_TO", 0)
    assert pruner.rank(tokens, 60).tolist() == held


@given(tokens=tall, data=st.data())
def test_dpp_is_greedy_on_the_determinant_of_cosines(tokens, data):
    k = data.draw(st.integers(1, min(tokens.shape)))
    cosine = units_of(tokens) @ units_of(tokens).T

    def volume(subset):
        index = torch.as_tensor(list(subset))
        return torch.linalg.det(cosine[index][:, index]).item()

    found = make_pruner("dpp", accumulate="float64").rank(tokens, k).tolist()
    # Rounding aside a single token always has volume 1: the first pick is a tie.
    greedy = brute_greedy(lambda s: 1.0 if len(s) == 1 else volume(s), len(tokens), k)
    assert found[0] == 0
    assert volume(found) == pytest.approx(volume(greedy), rel=1e-6, abs=1e-12)


@given(tokens=tall, data=st.data())
def test_herding_follows_its_recursion(tokens, data):
    k = data.draw(st.integers(1, len(tokens)))
    cosine = units_of(tokens) @ units_of(tokens).T
    picks: list[int] = []
    while len(picks) < k:
        rest = [i for i in range(len(tokens)) if i not in picks]
        score = cosine.mean(1) - cosine[:, picks].sum(1) / (len(picks) + 1)
        picks.append(max(rest, key=lambda i: float(score[i])))
    assert make_pruner("herding", accumulate="float64").rank(tokens, k).tolist() == picks


@given(tokens=tall, data=st.data())
def test_gaussian_herding_follows_its_recursion(tokens, data):
    k = data.draw(st.integers(1, len(tokens)))
    units = units_of(tokens)
    squared = torch.cdist(units, units).square()
    kernel = torch.exp(-squared / squared.mean())
    pruner = make_pruner("herding", kernel="gaussian", accumulate="float64")
    found = pruner.rank(tokens, k).tolist()
    for t, pick in enumerate(found):
        score = kernel.mean(1) - kernel[:, found[:t]].sum(1) / (t + 1)
        best = max(float(score[i]) for i in range(len(tokens)) if i not in found[:t])
        assert score[pick] == pytest.approx(best, abs=1e-9)


def test_gaussian_herding_matches_its_mean_embedding_better_than_chance():
    tokens = real_tokens()["chelsea"]
    units = units_of(tokens)
    spread = 2 - 2 * units.mean(0).square().sum()
    kernel = torch.exp((2 * units @ units.T - 2) / spread)

    def discrepancy(kept):
        return float(kernel.mean() - 2 * kernel[:, kept].mean() + kernel[kept][:, kept].mean())

    herd = make_pruner("herding", kernel="gaussian").rank(tokens, 40)
    chance = [make_pruner("random", seed=s).rank(tokens, 40) for s in range(20)]
    assert discrepancy(herd) < 0.5 * min(discrepancy(kept) for kept in chance)


@given(tokens=tall, data=st.data())
def test_facility_location_is_greedy_on_its_sum(tokens, data):
    k = data.draw(st.integers(1, len(tokens)))
    similarity = (1 + units_of(tokens) @ units_of(tokens).T) / 2

    def served(subset):
        return similarity[:, list(subset)].amax(1).sum().item()

    found = make_pruner("facility_location", accumulate="float64").rank(tokens, k).tolist()
    greedy = brute_greedy(served, len(tokens), k)
    assert served(found) == pytest.approx(served(greedy), rel=1e-9)
    optimum = max(served(s) for s in itertools.combinations(range(len(tokens)), min(k, 3)))
    assert served(found[: min(k, 3)]) >= (1 - 1 / math.e) * optimum


@given(tokens=tall, data=st.data())
@settings(max_examples=25)
def test_kmedoids_never_serves_worse_than_its_start_and_ends_at_a_fixed_point(tokens, data):
    k = data.draw(st.integers(1, len(tokens)))
    units = units_of(tokens)
    pruner = make_pruner("kmedoids", accumulate="float64")
    start = make_pruner("facility_location", accumulate="float64").select(tokens, k)
    kept = pruner.select(tokens, k)
    assert coverage(units, kept) <= coverage(units, start) + 1e-9
    distance = 1 - units @ units.T
    group = distance[:, kept].argmin(1)
    for g, medoid in enumerate(kept.tolist()):
        members = (group == g).nonzero()[:, 0]
        if medoid in members.tolist():
            own = distance[medoid, members].sum()
            assert own <= distance[members][:, members].sum(1).min() + 1e-9


def test_kmedoids_improves_on_real_tokens():
    tokens = real_tokens()["astronaut"]
    units = unit_rows(tokens)
    start = coverage(units, make_pruner("facility_location").select(tokens, 56))
    assert coverage(units, make_pruner("kmedoids").select(tokens, 56)) < start
    unmoved = make_pruner("kmedoids", max_rounds=0).select(tokens, 56)
    assert coverage(units, unmoved) == pytest.approx(start)


@pytest.mark.parametrize("space", ["raw", "unit"])
@given(tokens=tall, data=st.data())
def test_farthest_point_covers_within_twice_the_best_radius(space, tokens, data):
    k = data.draw(st.integers(1, min(3, len(tokens))))
    points = units_of(tokens) if space == "unit" else tokens.double()

    def radius(subset):
        return torch.cdist(points, points[list(subset)]).amin(1).max().item()

    found = make_pruner("farthest_point", space=space, accumulate="float64").rank(tokens, k)
    best = min(radius(s) for s in itertools.combinations(range(len(tokens)), k))
    assert radius(found.tolist()) <= 2 * best + 1e-6 * points.abs().max().item()


def test_farthest_point_starts_at_the_token_nearest_the_mean(rng):
    tokens = torch.randn(30, 4, generator=rng)
    nearest = (tokens - tokens.mean(0)).norm(dim=1).argmin()
    assert make_pruner("farthest_point").rank(tokens, 1).item() == nearest


def test_random_depends_on_seed_and_image_and_on_nothing_else(rng):
    a, b = torch.randn(100, 4, generator=rng), torch.randn(100, 7, generator=rng)
    draw = make_pruner("random")
    assert torch.equal(draw.rank(a, 20), draw.rank(b, 20))
    assert torch.equal(draw.rank(a, 20, Signals(image_id=3)), draw.rank(b, 20, Signals(image_id=3)))
    draws = [draw.rank(a, 20, Signals(image_id=i)) for i in range(50)]
    draws += [make_pruner("random", seed=s).rank(a, 20) for s in range(50)]
    assert len({tuple(order.tolist()) for order in draws}) == 100


def test_random_is_uniform_over_positions():
    tokens = torch.zeros(20, 1)
    counts = torch.zeros(20)
    for seed in range(2000):
        counts[make_pruner("random", seed=seed).rank(tokens, 5)] += 1
    # 500 expected each; five standard deviations of the binomial.
    assert (counts - 500).abs().max() < 5 * math.sqrt(2000 * 0.25 * 0.75)


@given(n=st.integers(1, 3000), data=st.data())
def test_uniform_leaves_gaps_that_differ_by_at_most_one(n, data):
    k = data.draw(st.integers(1, n))
    kept = make_pruner("uniform").select(torch.zeros(n, 1), k)
    if k < n and k > 1:
        gaps = kept.diff()
        assert gaps.max() - gaps.min() <= 1
        assert abs(int(kept[0]) - (n - 1 - int(kept[-1]))) <= n // k


def test_the_grid_of_64_is_every_third_token_both_ways():
    kept = make_pruner("grid").select(torch.zeros(576, 1), 64)
    expected = [y * 24 + x for y in range(1, 24, 3) for x in range(1, 24, 3)]
    assert kept.tolist() == expected


@given(height=st.integers(1, 40), width=st.integers(1, 40), data=st.data())
def test_a_grid_shares_its_tokens_evenly_among_its_rows(height, width, data):
    n = height * width
    k = data.draw(st.integers(1, n))
    signals = Signals(grid=(height, width))
    kept = make_pruner("grid").rank(torch.zeros(n, 1), k, signals)
    assert len(kept.unique()) == k
    counts = (kept // width).unique(return_counts=True)[1]
    assert counts.max() - counts.min() <= 1


def test_a_grid_covers_the_image_better_than_a_stride():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], dim=1)
    grid = coverage(places, make_pruner("grid").select(places, 56))
    stride = coverage(places, make_pruner("uniform").select(places, 56))
    assert grid < stride


def test_a_grid_needs_its_shape_where_n_is_no_square():
    with pytest.raises(ValueError, match=r"signals\.grid must be given .* n = 10"):
        make_pruner("grid").select(torch.zeros(10, 1), 3)
    with pytest.raises(ValueError, match=r"grid of tokens must have n = 10 tokens, got 3 x 3"):
        make_pruner("grid").select(torch.zeros(10, 1), 3, signals=Signals(grid=(3, 3)))


def test_first_and_last_k_are_the_ends():
    tokens = torch.zeros(10, 1)
    assert make_pruner("first_k").rank(tokens, 3).tolist() == [0, 1, 2]
    assert make_pruner("last_k").rank(tokens, 3).tolist() == [9, 8, 7]
    assert make_pruner("last_k").select(tokens, 3).tolist() == [7, 8, 9]


def test_dpp_leaves_zero_tokens_for_last_and_starts_at_the_first_others():
    g = torch.Generator().manual_seed(2)
    tokens = torch.randn(1700, 40, generator=g)
    tokens[[0, 5]] = 0
    picks = make_pruner("dpp").rank(tokens, 40).tolist()
    assert picks[0] == 1
    assert not {0, 5} & set(picks)


def test_divprune_in_half_precision_survives_norms_beyond_its_range():
    g = torch.Generator().manual_seed(3)
    tokens = (2000 * torch.randn(40, 4096, generator=g)).half()
    half = make_pruner("divprune", accumulate="model").rank(tokens, 6).tolist()
    assert half != list(range(6))
