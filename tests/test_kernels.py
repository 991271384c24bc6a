import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import otprune.kernels
from helpers import HostReads, token_matrices
from otprune.kernels import (
    FactoredKernel,
    column_energy,
    gram_is_cheaper,
    in_range,
    squared_gram,
    symmetric_product,
    unit_rows,
)


@pytest.mark.parametrize("n", [1, 5, 191, 192, 193, 500])
def test_the_blocked_product_equals_the_plain_one(n, rng):
    v = torch.randn(n, 17, generator=rng, dtype=torch.float64)
    weights = torch.rand(17, generator=rng, dtype=torch.float64)
    product = symmetric_product(v, v, weights)
    torch.testing.assert_close(product, (v * weights) @ v.T)
    torch.testing.assert_close(product, product.T)


@pytest.mark.parametrize(("n", "d"), [(30, 40), (90, 8), (7, 1), (1, 3)])
def test_both_factorisations_are_the_squared_gram_matrix(n, d, rng):
    v = torch.randn(n, d, generator=rng, dtype=torch.float64)
    weights = torch.rand(d, generator=rng, dtype=torch.float64)
    kernel = squared_gram(v, weights, scale=0.3, ridge=1.0)
    similarity = (v * weights) @ v.T
    expected = torch.eye(n, dtype=torch.float64) + 0.3 * similarity @ similarity
    torch.testing.assert_close(kernel.dense(), expected)
    torch.testing.assert_close(kernel.diagonal(), expected.diagonal())
    assert (kernel.middle is None) == (not gram_is_cheaper(n, d))
    index = torch.tensor([n - 1, 0])
    torch.testing.assert_close(kernel.rows(index), expected[index])
    torch.testing.assert_close(kernel.left() @ kernel.factor.T * 0.3, expected - torch.eye(n))


@given(tokens=token_matrices(), ridge=st.sampled_from([0.0, 1.0]))
def test_the_kernel_is_positive_semi_definite(tokens, ridge):
    kernel = squared_gram(unit_rows(tokens.double()), ridge=ridge)
    eigenvalues = torch.linalg.eigvalsh(kernel.dense())
    assert eigenvalues.min() >= ridge - 1e-9 * len(tokens) ** 2


@pytest.mark.parametrize("given", [False, True])
def test_rows_of_a_kernel_with_a_symmetric_factor(given, rng):
    v = torch.randn(70, 90, generator=rng)
    kernel = squared_gram(v, torch.rand(90, generator=rng), scale=0.2, ridge=1.0)
    assert kernel.symmetric
    assert torch.equal(kernel.factor, kernel.factor.T)
    index = torch.tensor([69, 0, 33])
    out = torch.empty(5, 70)
    rows = kernel.rows(index, out[1:4] if given else None)
    torch.testing.assert_close(rows, kernel.dense()[index])
    assert not given or torch.equal(out[1:4], rows)
    plain = FactoredKernel(kernel.factor, None, 0.2, 1.0)
    torch.testing.assert_close(rows, plain.rows(index))


def test_column_energy_is_the_squared_norm_of_each_channel(rng):
    v = torch.randn(401, 9, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(column_energy(v), v.norm(dim=0) ** 2)


def test_unit_rows_leave_an_all_zero_token_zero(rng):
    v = torch.randn(4, 3, generator=rng)
    v[2] = 0
    units = unit_rows(v)
    torch.testing.assert_close(units.norm(dim=1), torch.tensor([1.0, 1.0, 0.0, 1.0]))


def test_the_memory_of_the_gram_route_does_not_grow_with_n_squared():
    kernel = squared_gram(torch.ones(5000, 4))
    assert kernel.factor.numel() + kernel.middle.numel() == 5000 * 4 + 4 * 4


@pytest.mark.parametrize("r", [1, 191, 192, 400])
def test_the_diagonal_through_a_middle_is_its_quadratic_forms(r, rng):
    v = torch.randn(30, r, generator=rng, dtype=torch.float64)
    root = torch.randn(r, r, generator=rng, dtype=torch.float64)
    kernel = FactoredKernel(v, root @ root.T, scale=0.1, ridge=2.0)
    torch.testing.assert_close(kernel.diagonal(), kernel.dense().diagonal())


def test_a_plain_gram_kernel_needs_one_factor(rng):
    v = torch.randn(6, 3, generator=rng)
    kernel = FactoredKernel(v, scale=2.0, ridge=0.5)
    torch.testing.assert_close(kernel.dense(), 2 * v @ v.T + 0.5 * torch.eye(6))
    assert len(kernel) == 6


@pytest.mark.parametrize("factor", [1e25, 1e-25, 1e37])
def test_unit_rows_survive_squares_outside_float32(factor, rng):
    v = torch.randn(20, 7, generator=rng)
    torch.testing.assert_close(unit_rows(v * factor), unit_rows(v))


def test_in_range_leaves_ordinary_tokens_alone(rng):
    v = torch.randn(20, 7, generator=rng)
    assert in_range(v) is v
    assert in_range(v * 0).abs().max() == 0


@pytest.mark.parametrize("factor", [1.0, 1e25, 1e-25, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_gpu_s_way_without_reading_gives_the_same(factor, dtype, rng, monkeypatch):
    v = (torch.randn(20, 7, generator=rng) * factor).to(dtype)
    v[3] = 0
    expected = unit_rows(v), in_range(v)
    monkeypatch.setattr(otprune.kernels, "reading_waits", lambda _: True)
    with HostReads() as reads:
        found = unit_rows(v), in_range(v)
    assert reads.count == 0
    assert all(map(torch.equal, found, expected))


def test_unit_rows_scale_each_token_by_itself(rng):
    v = torch.randn(20, 7, generator=rng)
    mixed = v * torch.tensor([1e25, 1e-25, 1.0, 1e-3]).repeat(5)[:, None]
    torch.testing.assert_close(unit_rows(mixed), unit_rows(v))
