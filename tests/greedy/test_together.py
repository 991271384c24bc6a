"""What a GPU is given for a batch, on a CPU: images padded and handled in the same operations."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import HostReads, token_matrices
from otprune import make_pruner
from otprune.compiled import without_loops
from otprune.greedy import conditional, coverage, max_min_device, programs
from otprune.greedy.coverage import coverage_loop, coverage_picks
from otprune.greedy.covers import Cover, padded_rows, turns
from otprune.greedy.padded_kernels import dense_kernels, padded_units
from otprune.greedy.programs import behind, go_together, images_at_once, in_parts, padded
from otprune.kernels import FactoredKernel, squared_gram
from otprune.pruning.choose import on_cpu
from otprune.selectors.cdpruner import conditional_picks, conditional_together
from otprune.selectors.divprune import divprune_together
from otprune.selectors.facility_location import similarities_together
from otprune.selectors.farthest_point import farthest_together

batches = st.lists(token_matrices(max_n=14, max_d=6), min_size=1, max_size=4)


def counts_of(images, data):
    return [data.draw(st.integers(1, len(image))) for image in images]


@given(images=batches, data=st.data())
@settings(max_examples=30)
def test_divprune_of_a_batch_is_that_of_its_images(images, data):
    # In float64, whose rounding decides nothing between tokens of random numbers.
    k, pruner = counts_of(images, data), make_pruner("divprune", accumulate="float64")
    found = divprune_together(images, k, torch.float64)
    for order, image, count in zip(found, images, k, strict=True):
        units = torch.nn.functional.normalize(image.double(), dim=1)
        distances = (1 - units @ units.T).fill_diagonal_(0)
        alone = pruner.rank(image, count)
        # Of fewer channels than two, or fewer tokens than three, distances are equal.
        if image.shape[1] > 1 and len(image) > 2 and not ties(distances):
            assert order.tolist() == alone.tolist()
        assert len(set(order.tolist())) == count


def ties(distances):
    values = distances[~torch.eye(len(distances), dtype=torch.bool)].unique(sorted=True)
    # Each occurs twice.
    return len(values) < len(distances) * (len(distances) - 1) // 2 or values.diff().min() < 1e-9


@given(images=batches, data=st.data())
@settings(max_examples=30)
def test_farthest_point_of_a_batch_is_that_of_its_images(images, data):
    k, pruner = counts_of(images, data), make_pruner("farthest_point", accumulate="float64")
    points = [image / image.abs().max() for image in images]
    for order, image, count in zip(farthest_together(points, k), points, k, strict=True):
        assert len(set(order.tolist())) == count
        # As far from each other as those of float64, up to the rounding of float32.
        assert spread(image, order) == pytest.approx(spread(image, pruner.rank(image, count)), 1e-5)


def spread(points, order):
    """The distance at which the last pick was made."""
    if len(order) == 1:
        return float(torch.dist(points[order[0]].double(), points.double().mean(0)))
    chosen = points[order].double()
    return float(torch.cdist(chosen[-1:], chosen[:-1]).min())


def test_points_that_are_the_same_are_at_distance_zero_exactly(rng):
    points = 1000 + torch.randn(5, 300, generator=rng)
    (order,) = farthest_together([points.repeat(3, 1)], [15])
    picks = order.tolist()
    assert sorted(one % 5 for one in picks[:5]) == list(range(5))
    rest = [one for one in range(15) if one not in picks[:5]]
    assert picks[5:] == rest


@given(images=batches, data=st.data())
@settings(max_examples=20)
def test_cdpruner_of_a_batch_is_that_of_its_images(images, data):
    k = counts_of(images, data)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 100)))
    relevance = [torch.rand(len(image), generator=generator) for image in images]
    units = padded_units(images, torch.float32)
    together = conditional_together(units, relevance, k)
    for order, one, of, image, count in zip(together, units, relevance, images, k, strict=True):
        assert len(set(order.tolist())) == count
        # Whether a token is spanned is a matter of rounding where channels are just used up.
        most = min(count, max(1, image.shape[1] - 1))
        with without_loops():
            alone = conditional_picks(one[: len(image)], of, count)
        assert order[:most].tolist() == alone[:most].tolist()


def test_one_token_and_tokens_of_nothing_are_no_trouble():
    images = [torch.ones(1, 3), torch.zeros(4, 3), torch.eye(3)]
    assert [len(one) for one in divprune_together(images, [1, 2, 3], torch.float32)] == [1, 2, 3]
    assert divprune_together(images[:1], [1], torch.float32)[0].tolist() == [0]
    assert farthest_together(images, [1, 4, 1])[1].tolist() == [0, 1, 2, 3]


@given(images=batches)
@settings(max_examples=15)
def test_similarities_of_a_batch_are_those_of_its_images(images):
    for found, image in zip(similarities_together(images, torch.float64), images, strict=True):
        units = torch.nn.functional.normalize(image.double(), dim=1)
        torch.testing.assert_close(found, (1 + units @ units.T) / 2)


def test_nothing_is_read_back_for_a_batch(rng):
    images = [torch.randn(n, 8, generator=rng) for n in (9, 12)]
    with HostReads() as reads:
        max_min_device.max_min_device(
            torch.rand(2, 12, 12), torch.zeros(2, dtype=torch.long), [9, 12], [3, 4]
        )
        padded(images, torch.float32)
        covers = [Cover(torch.rand(5, 6), 2), Cover(torch.rand(3, 4), 2, torch.tensor([1]))]
        turns(covers, padded_rows(covers))
    assert reads.count == 0


def test_padding_is_zero_and_never_picked(rng):
    images = [torch.randn(n, d, generator=rng) for n, d in ((2, 3), (4, 2))]
    together = padded(images, torch.float64)
    assert together.dtype == torch.float64
    torch.testing.assert_close(together[0, :2, :3], images[0].double())
    torch.testing.assert_close(together[1, :, :2], images[1].double())
    assert together[0, 2:].abs().sum() == together[1, :, 2].abs().sum() == 0
    assert behind([2, 4], together).tolist() == [[False, False, True, True], [False] * 4]
    covers = [Cover(torch.rand(5, 3), 2, torch.tensor([0, 2])), Cover(torch.rand(2, 4), 2)]
    assert turns(covers, padded_rows(covers)).tolist() == [[1, 0, 1, 2], [0, 0, 0, 0]]


def test_images_that_do_not_fit_follow_in_parts(monkeypatch):
    monkeypatch.setattr(programs, "BYTES", 1000)
    assert images_at_once(100, torch.float32) == 2
    assert images_at_once(10_000, torch.float32) == 1
    assert [list(range(5))[part] for part in in_parts(5, 2)] == [[0, 1], [2, 3], [4]]


def test_images_on_a_cpu_go_one_by_one(rng):
    assert not go_together([torch.randn(4, 3, generator=rng)], torch.float32)


def test_weights_and_a_last_group_decide(rng):
    rows = torch.eye(4)
    weights = torch.tensor([1.0, 3.0, 2.0, 0.0])
    assert coverage_loop(Cover(rows, 4, None, weights)).tolist() == [1, 2, 0, 3]
    assert coverage_loop(Cover(rows, 4, torch.tensor([1]), weights)).tolist() == [2, 0, 3, 1]
    assert [one.tolist() for one in coverage_picks([Cover(rows, 2)] * 2)] == [[0, 1], [0, 1]]


@pytest.mark.parametrize("module", [max_min_device, coverage, conditional])
def test_without_triton_there_is_no_program(module, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "triton.errors", None)
    kind = [] if module is conditional else [torch.float32]
    with caplog.at_level("INFO"):
        assert module._program.__wrapped__(torch.device("cpu"), *kind) is None
    assert "there is no triton" in caplog.text


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize(("n", "d"), [(12, 20), (30, 6), (1, 4)])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e18])
def test_kernels_of_a_batch_are_those_of_its_images(variant, n, d, size, rng):
    pruner = make_pruner("otprune", variant=variant, gamma=1.0)
    images = [torch.randn(n, d, generator=rng) for _ in range(2)]
    images = [images[0], images[1] * size, torch.zeros(n, d)]
    k = [1, max(1, n // 2), n]
    images[0][:, 1] = 0
    together = pruner._kernels_together(images, k)
    alone = [pruner.kernel(image, count) for image, count in zip(images, k, strict=True)]
    for found, expected in zip(together, alone, strict=True):
        assert (found.middle is None) == (expected.middle is None)
        torch.testing.assert_close(found.dense(), expected.dense(), rtol=1e-4, atol=1e-4)
    full, variances = dense_kernels(together)
    torch.testing.assert_close(
        full, torch.stack([one.dense() for one in alone]), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(variances, full.diagonal(dim1=1, dim2=2))


def test_full_kernels_of_images_that_differ(rng):
    units = torch.nn.functional.normalize(torch.randn(7, 5, generator=rng), dim=1)
    kernels = [
        squared_gram(torch.randn(9, 2, generator=rng), scale=0.5),
        FactoredKernel(units, known_diagonal=torch.ones(7)),
        squared_gram(torch.randn(4, 8, generator=rng), scale=2.0),
    ]
    assert [kernel.middle is None for kernel in kernels] == [False, True, True]
    full, variances = dense_kernels(kernels)
    for found, variance, kernel in zip(full, variances, kernels, strict=True):
        n = len(kernel)
        torch.testing.assert_close(found[:n, :n], kernel.dense(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(variance[:n], kernel.diagonal(), rtol=1e-5, atol=1e-5)
        assert bool((variance[n:] == float("-inf")).all())
    assert variances[1, :7].tolist() == [1.0] * 7


def test_picks_come_to_the_cpu_as_they_are():
    picked = [torch.arange(3), torch.arange(0), torch.arange(5)]
    assert [one.tolist() for one in on_cpu(picked)] == [[0, 1, 2], [], [0, 1, 2, 3, 4]]
    assert on_cpu([]) == []
    kinds = [torch.arange(2, dtype=torch.int32), torch.arange(2)]
    assert [one.dtype for one in on_cpu(kinds)] == [torch.int32, torch.int64]
