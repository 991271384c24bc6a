"""Detectable differences against statsmodels, simulation and their own inverse."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.power import NormalIndPower, TTestPower

from otprune_lmms.reporting.statistics.power import (
    detectable_difference,
    detectable_from_error,
    documents_needed,
)

quiet = settings(deadline=None, max_examples=60, derandomize=True)


@quiet
@given(st.floats(0.01, 1), st.integers(50, 100_000))
def test_difference_and_documents_are_inverse(discordance, documents):
    difference = detectable_difference(discordance, documents)
    if math.isnan(difference):
        assert documents_needed(discordance, discordance) > documents
        return
    assert 0 < difference <= discordance
    assert documents_needed(discordance, difference) == pytest.approx(documents)


@quiet
@given(st.floats(0.05, 1), st.integers(300, 50_000), st.integers(1, 4))
def test_more_documents_find_smaller_differences(discordance, documents, factor):
    few = detectable_difference(discordance, documents)
    many = detectable_difference(discordance, documents * (1 + factor))
    assert many < few
    assert few < detectable_difference(min(1.0, 2 * discordance), documents) or discordance > 0.99


@pytest.mark.parametrize(("discordance", "documents"), [(0.2, 400), (0.5, 150), (0.08, 2017)])
def test_mcnemar_finds_it_as_often_as_said(discordance, documents):
    difference = detectable_difference(discordance, documents)
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    drawn = np.random.default_rng(0).multinomial(documents, shares, size=20_000)
    n, few = drawn[:, 0] + drawn[:, 1], drawn[:, :2].min(axis=1)
    p = 2 * binom.cdf(few, n, 0.5) - binom.pmf(few, n, 0.5)
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.02)


def test_the_error_s_rule_is_statsmodels(made):
    for documents in (50, 400, 12578):
        effect = NormalIndPower().solve_power(
            nobs1=documents, alpha=0.05, power=0.8, ratio=0, alternative="two-sided"
        )
        assert detectable_from_error(1 / math.sqrt(documents)) == pytest.approx(effect, rel=1e-4)
    t = TTestPower().solve_power(nobs=400, alpha=0.05, power=0.8, alternative="two-sided")
    assert detectable_from_error(1 / 20) == pytest.approx(t, rel=0.01)
    assert detectable_from_error(1.0, alpha=0.01, power=0.9) == pytest.approx(
        2.5758 + 1.2816, abs=1e-3
    )
    assert detectable_from_error(0.0) == 0


def test_both_rules_agree_where_the_difference_is_small():
    discordance, documents = 0.3, 20_000
    error = math.sqrt(discordance / documents)
    assert detectable_difference(discordance, documents) == pytest.approx(
        detectable_from_error(error), rel=0.01
    )


@pytest.mark.parametrize(("discordance", "documents"), [(0.0, 100), (0.05, 20), (1.0, 1)])
def test_too_few_documents_find_nothing(discordance, documents):
    assert math.isnan(detectable_difference(discordance, documents))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: detectable_difference(1.1, 10), "discordance must lie"),
        (lambda: detectable_difference(math.nan, 10), "discordance must lie"),
        (lambda: detectable_difference(0.1, 0), "documents must be at least 1"),
        (lambda: detectable_difference(0.1, 10, alpha=0), "alpha must lie"),
        (lambda: detectable_difference(0.1, 10, power=1), "power must lie"),
        (lambda: documents_needed(0.1, 0.2), "difference must lie"),
        (lambda: documents_needed(0.1, 0.0), "difference must lie"),
        (lambda: detectable_from_error(-1.0), "error must not be negative"),
    ],
)
def test_impossible_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
