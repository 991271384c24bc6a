"""Distances of kept sets against closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otprune import wasserstein
from otprune.wasserstein import exact_w2, gaussian_w2
from otprune_lmms.experiments.diagnostics.measures import FullSet, Measures

# Two tokens on each axis: second moments diag(2, 1/2), mean zero, mean squared norm 5/2.
CROSS = torch.tensor([[2.0, 0], [-2, 0], [0, 1], [0, -1]])


def drawn(seed: int, n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(found: Measures) -> np.ndarray:
    return np.array([getattr(found, name) for name in Measures.__slots__])


def test_all_tokens_kept_are_at_no_distance():
    tokens = drawn(0, 12, 5)
    found = FullSet(tokens).measure(torch.arange(12))
    assert found.effective_rank == pytest.approx(1, abs=1e-9)
    distances = values(found)[:-1]
    assert np.abs(distances).max() < 1e-6


def test_known_second_moments():
    found = FullSet(CROSS).measure(torch.tensor([0, 1]))
    # (sqrt 2 - 2)^2 + (sqrt 1/2 - 0)^2, in units of the mean squared norm.
    wanted = math.sqrt(((math.sqrt(2) - 2) ** 2 + 0.5) / 2.5)
    assert found.gaussian_w2_zero_mean == pytest.approx(wanted)
    assert found.gaussian_w2 == pytest.approx(wanted)
    # With unit channels both axes have second moment 1/2, the kept one 1.
    assert found.gaussian_w2_channels == pytest.approx(math.sqrt((math.sqrt(0.5) - 1) ** 2 + 0.5))


def test_known_transport_and_coverage():
    found = FullSet(CROSS).measure(torch.tensor([1, 0]))
    # Half of the mass stays, half goes a squared distance of 5.
    assert found.exact_w2 == pytest.approx(1)
    assert found.coverage == pytest.approx(1)
    assert found.coverage_mean == pytest.approx(math.sqrt(5 / 2.5))
    assert found.coverage_max == pytest.approx(math.sqrt(5 / 2.5))


def test_coverage_of_points_on_a_line():
    tokens = torch.tensor([[0.0], [1], [2], [10]])
    unit = math.sqrt((0 + 1 + 4 + 100) / 4)
    found = FullSet(tokens).measure(torch.tensor([0, 3]))
    assert found.coverage_mean == pytest.approx((1 + 2) / 2 / unit)
    assert found.coverage_max == pytest.approx(2 / unit)
    assert found.coverage == pytest.approx(math.sqrt((1 + 4) / 4) / unit)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_orthonormal_tokens_fill_as_many_directions_as_there_are(k):
    found = FullSet(torch.eye(6, 9)).measure(torch.arange(k))
    assert found.effective_rank == pytest.approx(k / 6)


@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(2, 14), st.integers(1, 40)),
    st.floats(1e-3, 1e3),
    st.data(),
)
@settings(max_examples=30, deadline=None)
def test_what_holds_for_any_tokens(seed, shape, scale, data):
    n, d = shape
    tokens = drawn(seed, n, d) + 1
    kept = torch.randperm(n)[: data.draw(st.integers(1, n))]
    found = FullSet(tokens).measure(kept)
    # The library's own functions on the tokens as they are: no rotation, no fewer channels.
    plain = tokens / tokens.square().sum(1).mean().sqrt()
    assert found.exact_w2 == pytest.approx(exact_w2(plain, kept), abs=1e-7)
    assert found.gaussian_w2 == pytest.approx(gaussian_w2(plain, kept), abs=1e-6)
    zero_mean = gaussian_w2(plain, kept, centred=False)
    assert found.gaussian_w2_zero_mean == pytest.approx(zero_mean, abs=1e-6)
    assert found.coverage == pytest.approx(wasserstein.coverage(plain, kept), abs=1e-7)
    whole, some = map(wasserstein.effective_rank, (tokens, tokens[kept]))
    assert found.effective_rank == pytest.approx(some / whole)
    # Gelbrich's bound, and free masses.
    assert found.gaussian_w2 <= found.exact_w2 + 1e-6
    assert found.coverage <= found.exact_w2 + 1e-9
    assert found.coverage_mean <= found.coverage_max
    again = FullSet(tokens * scale).measure(kept.sort().values)
    np.testing.assert_allclose(values(again), values(found), atol=1e-6)


def test_channels_that_are_empty_do_not_matter():
    wide = torch.cat([CROSS, torch.zeros(4, 3)], dim=1)
    kept = torch.tensor([0, 2])
    own, other = (FullSet(tokens).measure(kept) for tokens in (wide, CROSS))
    np.testing.assert_allclose(values(own), values(other), atol=1e-7)


def test_tokens_without_any_content():
    found = FullSet(torch.zeros(3, 2)).measure(torch.tensor([1]))
    assert math.isnan(found.effective_rank)
    assert not values(found)[:-1].any()


def test_one_token():
    found = FullSet(torch.tensor([[3.0, 4]])).measure(torch.tensor([0]))
    assert not np.round(values(found)[:-1], 6).any()
    assert found.effective_rank == 1


def test_without_the_exact_distance_the_rest_is_the_same():
    kept = torch.tensor([0, 3])
    own, other = (FullSet(CROSS, exact=exact).measure(kept) for exact in (False, True))
    assert math.isnan(own.exact_w2)
    assert own.coverage == other.coverage


@pytest.mark.parametrize("kept", [[], [4], [-1], [1, 1]])
def test_impossible_positions_are_refused(kept):
    with pytest.raises(ValueError, match="kept"):
        FullSet(CROSS).measure(torch.tensor(kept, dtype=torch.int64))


def test_tokens_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        FullSet(torch.tensor([[1.0, math.nan]]))
