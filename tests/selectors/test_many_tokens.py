"""Thousands of tokens: the same picks as from all distances, without holding them."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import features, token_matrices
from otprune import kernels, make_pruner
from otprune.compiled import without_loops
from otprune.greedy import max_min
from otprune.kernels import unit_rows
from otprune.selectors import divprune, facility_location, kmedoids
from otprune.selectors.farthest_point import nearest_squares
from otprune.wasserstein import coverage


def far_apart(points, first, k):
    """Max-min picks under squared Euclidean distances, one by one, in float64."""
    distances = torch.cdist(points.double(), points.double()).square()
    order = [first]
    while len(order) < k:
        nearest = distances[order].amin(0)
        nearest[order] = -1
        order.append(int(nearest.argmax()))
    return order


@pytest.mark.parametrize("active", [1, 3, 256])
@pytest.mark.parametrize("compiled", [True, False])
@given(points=token_matrices(max_n=40, min_n=2, max_d=24), data=st.data())
@settings(max_examples=20)
def test_rounds_pick_what_one_by_one_picks(active, compiled, points, data):
    k = data.draw(st.integers(1, len(points)))
    points = points.double()

    def picks():
        return max_min.max_min_in_rounds(points, torch.tensor([0]), k, nearest_squares).tolist()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(max_min, "_ACTIVE", active)
        if compiled:
            found = picks()
        else:
            with without_loops():
                found = picks()
    assert found == far_apart(points, 0, k)


def test_rounds_go_by_position_among_duplicates(monkeypatch):
    monkeypatch.setattr(max_min, "_ACTIVE", 2)
    points = torch.eye(3).repeat_interleave(4, 0)
    order = max_min.max_min_in_rounds(points, torch.tensor([5]), 12, nearest_squares)
    assert order.tolist() == [5, 0, 8, 1, 2, 3, 4, 6, 7, 9, 10, 11]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d", "m"), [(1, 1, 1), (2, 3, 5), (7, 16, 4), (33, 70, 9)])
def test_nearest_squares_are_those_of_differences(dtype, n, d, m, rng):
    points = torch.randn(n, d, generator=rng).to(dtype) + 100
    centres = torch.randn(m, d, generator=rng).to(dtype) + 100
    expected = (points[:, None] - centres).square().sum(-1).amin(1)
    torch.testing.assert_close(nearest_squares(points, centres), expected)
    with without_loops():
        torch.testing.assert_close(nearest_squares(points, centres), expected)


@pytest.mark.parametrize("kind", ["smooth", "cluster", "outlier", "duplicates"])
def test_the_most_isolated_token_is_found_without_all_distances(kind, monkeypatch):
    monkeypatch.setattr(divprune, "_ROWS", 32)
    name = "smooth" if kind == "duplicates" else kind
    units = unit_rows(torch.tensor(features(name, 576, 24, 3)).double())
    if kind == "duplicates":
        units = units[:72].repeat(8, 1)
    distances = (1 - units @ units.T).fill_diagonal_(float("inf"))
    found = divprune.most_isolated(units)
    if kind == "duplicates":
        assert distances.amin(1)[found].item() == pytest.approx(0, abs=1e-12)
    else:
        assert found.tolist() == [int(distances.amin(1).argmax())]


@pytest.mark.parametrize("method", ["divprune", "facility_location", "kmedoids"])
@pytest.mark.parametrize("kind", ["smooth", "cluster", "lowrank"])
def test_picks_are_those_of_all_distances(method, kind, monkeypatch):
    tokens = torch.tensor(features(kind, 576, 40, 5))
    pruner = make_pruner(method, accumulate="float64")
    full = pruner.rank(tokens, 60).tolist()
    for module in (divprune, facility_location, kmedoids):
        monkeypatch.setattr(module, "_ROWS", 100)
    monkeypatch.setattr(divprune, "_FULL_UP_TO", 0)
    monkeypatch.setattr(facility_location, "FULL_UP_TO", 0)
    monkeypatch.setattr(kmedoids, "FULL_UP_TO", 0)
    found = pruner.rank(tokens, 60).tolist()
    if kind == "cluster" and method != "divprune":
        # Among the members of a tight cluster some are worth the same to the last bits; k-medoids
        # ends in another local optimum if it starts from another of them.
        worth = [coverage(unit_rows(tokens), torch.tensor(order)) for order in (found, full)]
        assert worth[0] == pytest.approx(worth[1], rel=1e-6 if method != "kmedoids" else 2e-3)
    else:
        assert found == full


PEAK = """
import resource, torch
from otprune import make_pruner

torch.set_num_threads(1)
tokens = torch.randn(12000, 16, generator=torch.Generator().manual_seed(0))
names = ["otprune", "dpp", "herding", "divprune", "farthest_point", "facility_location", "kmedoids"]
for name in names:
    make_pruner(name).rank(tokens[:5000], 8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in names:
    make_pruner(name).rank(tokens, 8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_no_method_holds_a_number_for_each_pair_of_tokens():
    # 12000² float32 are 549 MiB, 454 MiB more than the 5000² of the first runs would be.
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(done.stdout) < 300


@pytest.mark.parametrize("method", ["w2greedy", "divprune", "facility_location"])
def test_what_does_not_fit_is_refused_with_its_size(method, monkeypatch):
    monkeypatch.setattr(kernels, "MOST_GIB", 1e-4)
    with pytest.raises(ValueError, match=r"would take 0\.0 GiB; the limit is 0\.0001 GiB"):
        make_pruner(method).rank(torch.eye(300), 20)
