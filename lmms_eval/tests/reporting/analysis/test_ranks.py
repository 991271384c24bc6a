"""Rank correlations against scipy and brute force."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from otprune_lmms.reporting.analysis.ranks import mean_spearman_p, spearman

small = st.integers(0, 3).map(float)


@given(arrays(float, (2, 6), elements=small))
def test_as_scipy_with_ties(pair):
    x, y = pair
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(spearman(x, y))
        return
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)


def test_many_at_once_are_each_alone():
    x, y = np.random.default_rng(0).normal(size=(2, 4, 3, 5))
    found = spearman(x, y)
    assert found.shape == (4, 3)
    assert found[2, 1] == pytest.approx(scipy.stats.spearmanr(x[2, 1], y[2, 1]).statistic)
    np.testing.assert_allclose(spearman(x[0, 0], y)[1, 2], spearman(x[0, 0], y[1, 2]))


def test_unknown_values_leave_it_undefined():
    assert np.isnan(spearman(np.array([1.0, np.nan, 3]), np.array([1.0, 2, 3])))
    assert np.isnan(spearman(np.array([1.0]), np.array([2.0])))


TIES_NEAR_ZERO = np.array(
    [
        [[0.0, 0, 0, 1, 1], [0, 0, 1, 2, 0], [0, 0, 2, 1, 2]],
        [[0.0, 1, 1, 1, 2], [0, 1, 0, 0, 1], [0, 0, 0, 1, 0]],
    ]
)


@given(arrays(float, (2, 3, 5), elements=small))
@example(TIES_NEAR_ZERO)
@settings(max_examples=15, deadline=None)
def test_p_is_that_of_all_permutations(pair):
    x, y = pair
    if np.isnan(spearman(x, y)).any():
        assert math.isnan(mean_spearman_p(x, y)[0])
        return
    seen = spearman(x, y).mean()
    every = np.array(
        [spearman(x[:, list(order)], y).mean() for order in itertools.permutations(range(5))]
    )
    least = min((every >= seen - 1e-9).mean(), (every <= seen + 1e-9).mean())
    p, tried = mean_spearman_p(x, y)
    assert tried == 120
    assert p == pytest.approx(min(1, 2 * least))


@pytest.mark.parametrize("methods", [3, 4, 5])
def test_few_methods_cannot_give_a_small_p(methods):
    x = np.arange(float(methods))
    assert mean_spearman_p(x[None], x[None])[0] == pytest.approx(2 / math.factorial(methods))


def test_benchmarks_that_repeat_each_other_do_not_make_p_smaller():
    x = np.array([1.0, 2, 3, 4, 5])
    y = np.array([1.0, 2, 3, 5, 4])
    one = mean_spearman_p(x[None], y[None])
    assert mean_spearman_p(np.tile(x, (11, 1)), np.tile(y, (11, 1))) == one


def test_many_methods_are_permuted_by_chance():
    x = np.arange(10.0)
    p, tried = mean_spearman_p(x[None], x[None])
    assert tried == 20_000
    assert p == pytest.approx(2 / 20_001)
    assert mean_spearman_p(x[None], x[None]) == (p, tried)


def test_no_benchmarks_have_no_p():
    assert math.isnan(mean_spearman_p(np.empty((0, 5)), np.empty((0, 5)))[0])
