"""Products of all pairs of rows, compiled."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otprune.compiled import loops_for, without_loops
from otprune.kernels import symmetric_product

LOOPS = loops_for(torch.empty(0))
if LOOPS is None:
    pytest.skip("the loops cannot be built here", allow_module_level=True)

DTYPES = [torch.float32, torch.float64]


def made(n, d, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=dtype)


@pytest.fixture
def threads():
    """Set how many threads torch uses, until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    n=st.integers(0, 130), d=st.integers(0, 600), weighted=st.booleans(), layout=st.integers(0, 2)
)
def test_products_are_those_of_exact_arithmetic(dtype, n, d, weighted, layout):
    rows = {
        0: lambda: made(n, d, dtype),
        1: lambda: made(d, n, dtype).T,
        2: lambda: made(2 * n, 3 * d, dtype)[::2, ::3],
    }[layout]()
    weights = made(1, d, dtype, 1)[0].square() if weighted else None
    product = LOOPS.all_products(rows, weights)
    wide = rows.double()
    scaled = wide if weights is None else wide * weights.double()
    bound = (scaled.abs() @ wide.abs().T).amax() if n and d else 1.0
    error = (product.double() - scaled @ wide.T).abs()
    assert product.shape == (n, n)
    assert error.numel() == 0 or error.max() <= 8 * torch.finfo(dtype).eps * bound
    assert torch.equal(product, product.T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_equal_rows_have_equal_products(dtype, weighted):
    # Wherever they lie: in the middle of a panel, at the edge, above or below the diagonal.
    rows = made(150, 300, dtype)[torch.arange(301) % 150]
    product = LOOPS.all_products(rows, torch.rand(300, dtype=dtype) if weighted else None)
    assert torch.equal(product[:150], product[150:300])
    assert torch.equal(product[:, 0], product[:, 300])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), [(300, 3500), (701, 700)])
def test_the_number_of_threads_changes_no_bit(dtype, n, d, threads):
    rows = made(n, d, dtype)
    found = []
    for count in (1, 2, 5, 200):
        threads(count)
        found.append(LOOPS.all_products(rows))
    assert all(torch.equal(found[0], other) for other in found)


def test_more_tokens_change_no_product():
    rows = made(333, 77, torch.float32)
    product = LOOPS.all_products(rows)
    for n in (1, 47, 48, 100, 290):
        assert torch.equal(product[:n, :n], LOOPS.all_products(rows[:n]))


def test_what_is_not_finite_stays_in_its_row_and_column():
    rows = made(100, 20, torch.float32)
    clean = LOOPS.all_products(rows)
    rows[60, 3] = float("nan")
    product = LOOPS.all_products(rows)
    others = torch.arange(100) != 60
    assert product[60].isnan().all()
    assert torch.equal(product[others][:, others], clean[others][:, others])


def test_sums_in_runs_are_no_less_exact_than_torchs():
    rows = made(500, 4096, torch.float32)
    exact = rows.double() @ rows.double().T
    with without_loops():
        plain = (symmetric_product(rows, rows) - exact).abs().mean()
    assert (LOOPS.all_products(rows) - exact).abs().mean() <= 1.2 * plain
