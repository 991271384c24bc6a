"""Sums of squares of columns, compiled."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otprune.compiled import loops_for, without_loops
from otprune.kernels import column_energy

LOOPS = loops_for(torch.empty(0))
if LOOPS is None:
    pytest.skip("the loops cannot be built here", allow_module_level=True)

DTYPES = [torch.float32, torch.float64]


def made(n, d, dtype):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(n + d), dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@given(n=st.integers(0, 600), d=st.integers(0, 70), apart=st.booleans())
def test_energies_are_those_of_exact_arithmetic(dtype, n, d, apart):
    rows = made(n, 2 * d, dtype)[:, :d] if apart else made(n, d, dtype)
    exact = rows.double().square().sum(0)
    bound = 40 * torch.finfo(dtype).eps * exact.max() if n and d else 0
    assert ((LOOPS.column_energies(rows).double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_columns_have_equal_energies(dtype):
    # Wherever they lie: in a vector, behind the last whole one, in another part.
    rows = made(301, 1, dtype).expand(-1, 2057).contiguous()
    assert len(LOOPS.column_energies(rows).unique()) == 1


def test_the_number_of_threads_changes_no_bit():
    rows, before, found = made(1100, 4000, torch.float32), torch.get_num_threads(), []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            found.append(LOOPS.column_energies(rows))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_column_that_is_not_finite_stays_alone():
    rows = made(40, 33, torch.float32)
    clean = LOOPS.column_energies(rows)
    rows[7, 3], rows[9, 20] = float("nan"), 1e30
    energies = LOOPS.column_energies(rows)
    assert energies[3].isnan()
    assert energies[20] == float("inf")
    others = torch.tensor([i not in {3, 20} for i in range(33)])
    assert torch.equal(energies[others], clean[others])


def test_energies_are_no_less_exact_than_torchs():
    rows = made(20_000, 64, torch.float32)
    exact = rows.double().square().sum(0)
    with without_loops():
        plain = (column_energy(rows) - exact).abs().mean()
    assert (column_energy(rows) - exact).abs().mean() <= 1.2 * plain


def test_columns_that_lie_apart_are_refused():
    with pytest.raises(
        ValueError, match="rows must have columns that lie together, got \\(1, 8\\)"
    ):
        LOOPS.column_energies(made(9, 8, torch.float32).T)


def test_columns_that_lie_apart_are_summed_in_torch():
    rows = made(9, 8, torch.float64).T
    torch.testing.assert_close(column_energy(rows), rows.square().sum(0))
