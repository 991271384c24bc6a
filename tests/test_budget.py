import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otprune import resolve_budget


@pytest.mark.parametrize(
    ("n", "ratio", "k"),
    [
        (576, 0.098, 56),
        (576, 1 / 9, 64),
        (2340, 0.098, 229),
        (2928, 0.098, 287),
        (576, 1.0, 576),
        (576, 1, 576),
        (576, 0.0001, 1),
        (5, 0.5, 2),  # 2.5 rounds to even
        (7, 0.5, 4),  # 3.5 rounds to even
        (1, 1e-9, 1),
    ],
)
def test_a_ratio_becomes_a_count_as_in_the_released_code(n, ratio, k):
    assert resolve_budget(n, keep_ratio=ratio) == k


@given(n=st.integers(1, 100_000), ratio=st.floats(0, 1, exclude_min=True))
def test_a_ratio_never_leaves_one_to_n_and_is_within_half_a_token(n, ratio):
    k = resolve_budget(n, keep_ratio=ratio)
    assert 1 <= k <= n
    assert abs(k - Fraction(ratio) * n) <= Fraction(1, 2) + Fraction(1, 10**6) or k == 1


def test_an_explicit_count_is_taken_as_it_is():
    assert resolve_budget(576, k=64) == 64
    assert resolve_budget(576, k=np.int64(64)) == 64


@pytest.mark.parametrize(
    "ratio", [0, 0.0, -0.1, 1.0001, 9.8, math.nan, math.inf, "0.1", True, None]
)
def test_a_ratio_outside_its_range_is_refused_by_name_rule_and_value(ratio):
    with pytest.raises(ValueError, match=r"keep_ratio .*got"):
        resolve_budget(576, keep_ratio=ratio)


@pytest.mark.parametrize("k", [0, -1, 577])
def test_a_count_outside_its_range_is_refused(k):
    with pytest.raises(ValueError, match=rf"k must be in 1\.\.n = 1\.\.576, got {k}"):
        resolve_budget(576, k=k)


@pytest.mark.parametrize("k", [1.5, "3", True, 56.0])
def test_a_count_that_is_no_integer_is_refused(k):
    with pytest.raises(ValueError, match="k must be an integer"):
        resolve_budget(576, k=k)


def test_both_or_neither_is_refused():
    with pytest.raises(ValueError, match="exactly one of keep_ratio and k"):
        resolve_budget(576, keep_ratio=0.1, k=5)
    with pytest.raises(ValueError, match="exactly one of keep_ratio and k"):
        resolve_budget(576)


def test_no_tokens_is_refused():
    with pytest.raises(ValueError, match="n must be at least 1"):
        resolve_budget(0, keep_ratio=0.5)
