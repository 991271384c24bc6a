import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import (
    HostReads,
    best_subset,
    brute_greedy,
    features,
    logdet,
    no_waiting,
    otprune_kernel,
    token_matrices,
)
from otprune.greedy import device as device_module
from otprune.greedy import greedy_logdet, greedy_logdet_batch
from otprune.greedy.active_set import greedy_active_set
from otprune.greedy.by_rows import greedy_dense, greedy_row_cache
from otprune.greedy.device import greedy_device
from otprune.greedy.reference import greedy_reference
from otprune.kernels import FactoredKernel, squared_gram, unit_rows


def kernel_of(tokens: torch.Tensor, gamma: float = 0.01, ridge: float = 1.0) -> FactoredKernel:
    v = tokens.double()
    return squared_gram(v, 1 / v.square().sum(0), scale=gamma, ridge=ridge)


def device_one(kernel: FactoredKernel, k: int):
    return greedy_device([kernel], [k])[0]


def reference_full(kernel: FactoredKernel, k: int):
    return greedy_reference(kernel.dense(), k)


ENGINES = [greedy_dense, greedy_row_cache, greedy_active_set, device_one, reference_full]


@pytest.mark.parametrize("engine", ENGINES)
@given(tokens=token_matrices(max_n=8), data=st.data())
def test_picks_are_those_of_evaluating_the_log_determinant_itself(engine, tokens, data):
    k = data.draw(st.integers(1, len(tokens)))
    # A large gamma makes the interactions large: near-ties of a nearly diagonal kernel are rare.
    full = otprune_kernel(tokens, gamma=1.0)
    picks = engine(kernel_of(tokens, gamma=1.0), k)
    expected = brute_greedy(lambda s: logdet(full, s), len(tokens), k)
    gains = picks.variances.log().cumsum(0)
    torch.testing.assert_close(gains[-1].item(), logdet(full, expected), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gains[-1].item(), logdet(full, picks.order), rtol=1e-9, atol=1e-9)


@given(tokens=token_matrices(max_n=8, min_n=2), data=st.data())
def test_the_value_is_at_least_the_greedy_share_of_the_optimum(tokens, data):
    k = data.draw(st.integers(1, len(tokens)))
    full = otprune_kernel(tokens)
    picks = greedy_logdet(kernel_of(tokens), k)
    optimum = best_subset(lambda s: logdet(full, s), len(tokens), k)
    assert picks.variances.log().sum() >= (1 - 1 / math.e) * optimum - 1e-12


@pytest.mark.parametrize("engine", ENGINES)
@given(tokens=token_matrices(max_n=60))
@settings(max_examples=20)
def test_gains_never_increase_and_no_token_comes_twice(engine, tokens):
    picks = engine(kernel_of(tokens), len(tokens))
    assert (picks.variances[1:] <= picks.variances[:-1] + 1e-9 * picks.variances[0]).all()
    assert sorted(picks.order.tolist()) == list(range(len(tokens)))


@pytest.mark.parametrize("kind", ["lowrank", "cluster", "outlier", "smooth"])
@pytest.mark.parametrize(("n", "d"), [(576, 96), (1296, 700), (1600, 64)])
def test_all_engines_agree_on_image_like_tokens(kind, n, d):
    kernel = kernel_of(torch.tensor(features(kind, n, d, 1)))
    k = round(0.098 * n)
    expected = reference_full(kernel, k)
    for engine in (greedy_dense, greedy_row_cache, greedy_active_set, device_one):
        picks = engine(kernel, k)
        assert picks.order.tolist() == expected.order.tolist(), engine
        torch.testing.assert_close(picks.variances, expected.variances, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("engine", [greedy_dense, greedy_row_cache, greedy_active_set, device_one])
@pytest.mark.parametrize("n", [40, 900])
def test_a_smaller_budget_is_a_prefix_bit_for_bit(engine, n, rng):
    kernel = kernel_of(torch.randn(n, 50, generator=rng) + 1)
    longest = engine(kernel, n // 4).order.tolist()
    for k in (1, 2, n // 9, n // 5):
        assert engine(kernel, k).order.tolist() == longest[:k]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=5),
    data=st.data(),
)
def test_a_padded_batch_equals_its_images_one_by_one(sizes, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    kernels = [
        kernel_of(torch.randn(n, d, generator=generator), gamma=0.01 * (i + 1))
        for i, (n, d) in enumerate(sizes)
    ]
    counts = [data.draw(st.integers(1, n)) for n, _ in sizes]
    for picks, kernel, k in zip(greedy_device(kernels, counts), kernels, counts, strict=True):
        alone = greedy_dense(kernel, k)
        torch.testing.assert_close(picks.variances, alone.variances, rtol=1e-9, atol=1e-9)
        assert picks.order.tolist() == alone.order.tolist()


@pytest.mark.parametrize("engine", [greedy_dense, greedy_row_cache, greedy_active_set, device_one])
@pytest.mark.parametrize(("n", "d"), [(50, 6), (1000, 6)])
def test_picks_stay_distinct_after_the_rank_is_used_up(engine, n, d, rng):
    units = unit_rows(torch.randn(n, d, generator=rng))
    kernel = FactoredKernel(units)
    picks = engine(kernel, 20)
    order = picks.order.tolist()
    assert len(set(order)) == 20
    assert torch.isfinite(picks.variances).all()
    lowest = [i for i in range(n) if i not in order[:d]][: 20 - d]
    assert order[d:] == lowest


@pytest.mark.parametrize("engine", [greedy_dense, greedy_row_cache, greedy_active_set, device_one])
@pytest.mark.parametrize("n", [30, 800])
def test_equal_tokens_go_by_position(engine, n):
    assert engine(squared_gram(torch.zeros(n, 3), ridge=1.0), 10).order.tolist() == list(range(10))
    ones = engine(squared_gram(torch.ones(n, 3), scale=1e-4, ridge=1.0), 10).order.tolist()
    assert ones[0] == 0
    assert len(set(ones)) == 10


def test_exact_duplicates_leave_their_group_for_last(rng):
    tokens = torch.randn(12, 40, generator=rng).repeat_interleave(4, 0)
    picks = greedy_logdet(kernel_of(tokens, gamma=10.0), 12).order
    assert sorted((picks // 4).tolist()) == list(range(12))


def test_the_device_engine_reads_nothing_back_to_the_host(rng):
    kernels = [kernel_of(torch.randn(n, 8, generator=rng)) for n in (20, 30)]
    with HostReads() as reads:
        greedy_device(kernels, [5, 12])
    assert reads.count == 0
    with HostReads() as reads:
        greedy_dense(kernels[0], 5)
    assert reads.count > 0  # the counter does see host reads


@pytest.mark.gpu
def test_a_gpu_picks_what_a_cpu_picks(rng):
    tokens = torch.randn(576, 256, generator=rng)
    kernel = kernel_of(tokens)
    moved = kernel_of(tokens.cuda())
    # The first call compares the program with the loop, and waits for that.
    greedy_device([moved], [56])
    with no_waiting():
        picks = greedy_device([moved], [56])[0]
    assert picks.order.tolist() == greedy_dense(kernel, 56).order.tolist()


@pytest.mark.parametrize("k", [0, 11, -1])
def test_a_count_outside_the_tokens_is_refused(k, rng):
    with pytest.raises(ValueError, match="k must be"):
        greedy_logdet(kernel_of(torch.randn(10, 3, generator=rng)), k)


def test_no_images_give_no_picks():
    assert greedy_logdet_batch([], []) == []


def test_a_padded_batch_without_a_ridge_never_picks_padding(rng):
    kernels = [FactoredKernel(unit_rows(torch.randn(n, 4, generator=rng))) for n in (5, 12)]
    for picks, kernel in zip(greedy_device(kernels, [5, 9]), kernels, strict=True):
        assert picks.order.max() < len(kernel)
        assert picks.order.tolist() == greedy_dense(kernel, len(picks.order)).order.tolist()


def test_kernels_that_differ_are_refused(rng):
    v = torch.randn(6, 3, generator=rng)
    with pytest.raises(ValueError, match="kernels must share dtype, device and ridge"):
        greedy_logdet_batch([FactoredKernel(v), FactoredKernel(v, ridge=1.0)], [2, 2])


def test_a_tie_across_the_active_sets_boundary_goes_to_the_lower_position():
    # Two alternating orthogonal groups of equal weight: after the first pick the other group's 400
    # tokens tie, and part of them lies outside the active set.
    tokens = torch.eye(2)[torch.arange(800) % 2]
    kernel = squared_gram(tokens, scale=1e-3, ridge=1.0)
    assert greedy_active_set(kernel, 2).order.tolist() == [0, 1]


def test_the_active_set_grows_with_many_tokens(rng):
    tokens = torch.randn(14_000, 6, generator=rng, dtype=torch.float64)
    kernel = squared_gram(tokens, 1 / tokens.square().sum(0), scale=100.0, ridge=1.0)
    expected = greedy_row_cache(kernel, 30).order.tolist()
    assert greedy_active_set(kernel, 30).order.tolist() == expected


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_the_gram_route_survives_weights_whose_products_leave_float32(scale, rng):
    tokens = torch.randn(300, 32, generator=rng) * scale
    tokens[:, 3] *= 1e-6
    wide = tokens.double()
    exact = squared_gram(wide, 1 / wide.square().sum(0), scale=0.01, ridge=1.0)
    found = squared_gram(tokens, (1 / wide.square().sum(0)).float(), scale=0.01, ridge=1.0)
    torch.testing.assert_close(found.dense(), exact.dense().float(), rtol=1e-4, atol=1e-4)


def test_without_triton_a_gpu_runs_the_loop(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "triton.errors", None)
    device_module._program.cache_clear()
    with caplog.at_level("INFO"):
        assert device_module._program(torch.device("cpu"), torch.float32) is None
    assert "there is no triton" in caplog.text
    device_module._program.cache_clear()
