import platform
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otprune.set_order import set_order

on_cpython = pytest.mark.skipif(
    platform.python_implementation() != "CPython", reason="compares with CPython's own sets"
)


@on_cpython
@settings(max_examples=400)
@given(st.lists(st.integers(0, 5000), unique=True, max_size=400))
def test_the_order_is_that_of_cpythons_set(items):
    assert set_order(items) == list(set(items))


@on_cpython
@pytest.mark.parametrize("n", [576, 2340, 2928, 200_000])
@pytest.mark.parametrize("share", [0.01, 0.098, 0.2, 0.5, 0.9, 1.0])
def test_the_order_is_that_of_cpythons_set_for_real_sizes(n, share):
    items = random.Random(n).sample(range(n), int(n * share))
    assert set_order(items) == list(set(items))


def test_all_positions_come_out_ascending():
    assert set_order([3, 1, 0, 2]) == [0, 1, 2, 3]


def test_the_order_depends_on_how_the_items_came():
    # 8 slots: 0 and 8 collide, whoever comes first sits in front.
    assert set_order([0, 8]) == [0, 8]
    assert set_order([8, 0]) == [8, 0]


@pytest.mark.parametrize("items", [[1, 1], [-1, 2]])
def test_repeated_or_negative_items_are_refused(items):
    with pytest.raises(ValueError, match="distinct integers >= 0"):
        set_order(items)
