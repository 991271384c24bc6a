"""The program an image, on a GPU or in Triton's interpreter; scripts/test_triton.sh runs it so."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import HostReads, no_waiting, token_matrices
from otprune.greedy import device as device_module
from otprune.greedy import programs as programs_module
from otprune.greedy.by_rows import greedy_dense
from otprune.greedy.device import greedy_device, greedy_loop
from otprune.kernels import FactoredKernel, squared_gram, unit_rows

# TID251: Triton reads it when it is imported, and so must its tests.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # noqa: TID251
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = pytest.mark.skipif(
    not (INTERPRETED or torch.cuda.is_available()),
    reason="neither a GPU nor TRITON_INTERPRET=1",
)


def programs(kernels, k):
    from otprune.greedy.triton_program import greedy_programs

    return greedy_programs(kernels, k)


def kernel_of(tokens: torch.Tensor, gamma: float = 0.01, ridge: float = 1.0) -> FactoredKernel:
    v = tokens.to(DEVICE)
    return squared_gram(v, 1 / v.square().sum(0), scale=gamma, ridge=ridge)


def check(kernels, counts, within: float = 1e-9) -> None:
    for found, kernel, k in zip(programs(kernels, counts), kernels, counts, strict=True):
        alone = greedy_loop([kernel], [k])[0]
        assert found.order.tolist() == alone.order.tolist()
        torch.testing.assert_close(found.variances, alone.variances, rtol=within, atol=within)


@given(tokens=token_matrices(max_n=12), data=st.data())
@settings(max_examples=10)
def test_picks_are_those_of_the_loop(tokens, data):
    check([kernel_of(tokens.double(), gamma=1.0)], [data.draw(st.integers(1, len(tokens)))])


def test_images_of_any_size_and_budget_go_together(rng):
    sizes = ((130, 30), (33, 33), (300, 20), (1, 1))
    images = [torch.randn(n, 16, generator=rng, dtype=torch.float64) for n, _ in sizes]
    check([kernel_of(one, 0.1) for one in images], [k for _, k in sizes])


def test_more_images_than_fit_follow_in_further_launches(rng, monkeypatch):
    monkeypatch.setattr(programs_module, "BYTES", 2 * 20 * 20 * 8)
    images = [torch.randn(20, 4, generator=rng, dtype=torch.float64) for _ in range(5)]
    check([kernel_of(one, 0.1) for one in images], [3, 4, 5, 6, 7])


@pytest.mark.parametrize(("n", "k"), [(576, 56), (1000, 24)])
def test_float32_picks_are_those_of_a_cpu(n, k, rng):
    tokens = torch.randn(n, 64, generator=rng)
    (found,) = programs([kernel_of(tokens)], [k])
    v = tokens
    own = greedy_dense(squared_gram(v, 1 / v.square().sum(0), scale=0.01, ridge=1.0), k)
    assert found.order.tolist() == own.order.tolist()


def test_ties_and_a_rank_that_is_used_up_go_by_position(rng):
    zeros = squared_gram(torch.zeros(30, 3, device=DEVICE), ridge=1.0)
    assert programs([zeros], [10])[0].order.tolist() == list(range(10))
    units = FactoredKernel(unit_rows(torch.randn(50, 6, generator=rng)).to(DEVICE))
    order = programs([units], [20])[0].order.tolist()
    assert len(set(order)) == 20
    assert order[6:] == [one for one in range(50) if one not in order[:6]][:14]


def test_nothing_is_read_back(rng):
    kernels = [kernel_of(torch.randn(20, 4, generator=rng))]
    programs(kernels, [3])
    if not INTERPRETED:
        with HostReads() as reads, no_waiting():
            programs(kernels, [3])
        assert reads.count == 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_is_not_the_current_one_makes_its_own_picks(rng):
    tokens = torch.randn(90, 8, generator=rng)
    orders = []
    for device in ("cuda:0", "cuda:1"):
        kernel = squared_gram(tokens.to(device), scale=0.01, ridge=1.0)
        orders.append(programs([kernel], [9])[0].order.tolist())
    assert orders[0] == orders[1]


@pytest.mark.skipif(INTERPRETED, reason="kernels on a CPU are never given to it")
def test_a_gpu_uses_it(rng, caplog):
    device_module._program.cache_clear()
    kernels = [kernel_of(torch.randn(100, 8, generator=rng))]
    found, expected = greedy_device(kernels, [9])[0], greedy_loop(kernels, [9])[0]
    assert found.order.tolist() == expected.order.tolist()
    assert "runs in a loop" not in caplog.text


def test_a_program_that_picks_otherwise_is_not_used(monkeypatch, caplog):
    from otprune.greedy import triton_program

    def reversed_picks(kernels, k):
        return [one._replace(order=one.order.flip(0)) for one in greedy_loop(kernels, k)]

    device_module._program.cache_clear()
    monkeypatch.setattr(triton_program, "greedy_programs", reversed_picks)
    assert device_module._program(torch.device(DEVICE), torch.float32) is None
    assert "triton's picks differ from its own" in caplog.text
    device_module._program.cache_clear()
    monkeypatch.undo()
    assert device_module._program(torch.device(DEVICE), torch.float32) is programs_function()
    device_module._program.cache_clear()


def programs_function():
    from otprune.greedy.triton_program import greedy_programs

    return greedy_programs
