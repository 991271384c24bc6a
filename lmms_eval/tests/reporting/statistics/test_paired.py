"""Paired tests by hand, by brute force, and at their level."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otprune_lmms.reporting.statistics import paired
from otprune_lmms.reporting.statistics.gather import gather
from otprune_lmms.reporting.statistics.paired import (
    choose_test,
    compare_pairs,
    discordant,
    holm,
    mcnemar_midp,
)

quiet = settings(deadline=None, max_examples=40, derandomize=True)
PAIR = ("a", "b")


def only(made, task, seeds, clusters=None):
    frames = [
        made.seed_samples(task, right, clusters).assign(
            row=setting.partition("-seed")[0], setting=setting
        )
        for setting, right in seeds.items()
    ]
    (found,) = gather(task, pd.concat(frames, ignore_index=True))
    return found


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        # 299 of 4096 outcomes are as few or fewer, 220 of them as few.
        (3, 9, 378 / 4096),
        (0, 1, 0.5),
        (0, 5, 1 / 32),
        (4, 4, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(b, c, p):
    assert mcnemar_midp(b, c) == pytest.approx(p)
    assert mcnemar_midp(c, b) == pytest.approx(p)


@quiet
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_s_mid_p_counts_the_seen_outcome_half(b, c):
    n, few = b + c, min(b, c)
    below = sum(math.comb(n, k) for k in range(few)) / 2**n
    expected = 1.0 if b == c else 2 * (below + math.comb(n, few) / 2**n / 2)
    assert mcnemar_midp(b, c) == pytest.approx(expected)


def test_which_test_is_used(made):
    stream = np.random.default_rng(0)
    one, two = stream.integers(0, 2, (2, 60))
    plain = {"a": one, "b": two}
    assert choose_test(only(made, "gqa", plain), *PAIR) == "mcnemar-midp"
    shared = np.repeat(np.arange(30), 2)
    assert choose_test(only(made, "gqa", plain, shared), *PAIR) == "permutation"
    assert choose_test(only(made, "pope", plain), *PAIR) == "permutation"
    soft = {"a": one * 0.3, "b": two * 1.0}
    assert choose_test(only(made, "gqa", soft), *PAIR) == "permutation"
    seeds = {"a-seed0": one, "a-seed1": two, "b": two}
    assert choose_test(only(made, "gqa", seeds), *PAIR) == "permutation"
    hundred = {"a": 100 * one, "b": 100 * two}
    assert choose_test(only(made, "mmbench_en_dev_static", hundred), *PAIR) == "mcnemar-midp"
    few = np.where(np.arange(60) < 5, 1 - one, one)
    assert choose_test(only(made, "pope", {"a": one, "b": few}), *PAIR) == "permutation-exact"


def test_the_mcnemar_of_samples_counts_documents(made):
    own = np.array([1] * 9 + [0] * 3 + [1] * 20 + [0] * 8)
    other = np.array([0] * 9 + [1] * 3 + [1] * 20 + [0] * 8)
    found = only(made, "gqa", {"a": own, "b": other})
    assert discordant(found, *PAIR) == 12
    test, p = compare_pairs(found, [PAIR])[PAIR]
    assert (test, p) == ("mcnemar-midp", pytest.approx(378 / 4096))


def brute_force(made, task, own, other, clusters):
    """Exchange every subset of clusters, score with lmms-eval's code, count extremes."""
    gaps = []
    distinct = np.unique(clusters)
    for chosen in itertools.product([False, True], repeat=len(distinct)):
        flip = np.isin(clusters, distinct[np.array(chosen)])
        left = made.seed_samples(task, np.where(flip, other, own), clusters)
        right = made.seed_samples(task, np.where(flip, own, other), clusters)
        gaps.append(made.stock_score(task, left) - made.stock_score(task, right))
    # No exchange comes first.
    return np.mean(np.abs(gaps) >= abs(gaps[0]) - 1e-9)


@pytest.mark.parametrize("task", ["gqa", "pope", "coco2017_cap_val", "mme"])
@pytest.mark.parametrize("seed", range(3))
def test_the_exact_permutation_p_is_brute_force(made, task, seed):
    stream = np.random.default_rng(seed)
    clusters = np.arange(12) // 2 if task == "mme" else np.arange(18) // 3
    own, other = stream.integers(0, 2, (2, len(clusters)))
    if task == "coco2017_cap_val":
        own, other = stream.random((2, len(clusters)))
    found = only(made, task, {"a": own, "b": other}, clusters)
    test, p = compare_pairs(found, [PAIR])[PAIR]
    assert test == "permutation-exact"
    assert p == pytest.approx(brute_force(made, task, own, other, clusters))


@pytest.mark.parametrize("task", ["pope", "coco2017_cap_val", "mme"])
def test_random_exchanges_find_the_exact_p(made, task, monkeypatch):
    stream = np.random.default_rng(5)
    own, other = stream.integers(0, 2, (2, 24))
    own[:14] = 1
    found = only(made, task, {"a": own, "b": other}, np.arange(24) // 2)
    exact = compare_pairs(found, [PAIR])[PAIR]
    assert exact[0] == "permutation-exact"
    monkeypatch.setattr(paired, "_ENUMERATED", -1)
    test, p = compare_pairs(found, [PAIR], permutations=20_000)[PAIR]
    assert test == "permutation"
    assert p == pytest.approx(exact[1], abs=4 * math.sqrt(0.25 / 20_000))
    monkeypatch.setattr(paired, "_BLOCK", 100)
    small = compare_pairs(found, [PAIR], permutations=500, seed=3)[PAIR]
    monkeypatch.setattr(paired, "_BLOCK", 10**6)
    assert compare_pairs(found, [PAIR], permutations=500, seed=3)[PAIR] == small


def test_pairs_tested_together_or_alone_are_the_same(made):
    stream = np.random.default_rng(0)
    seeds = {name: stream.random(50) for name in "abc"} | {
        f"r-seed{i}": stream.random(50) for i in range(3)
    }
    found = only(made, "coco2017_cap_val", seeds)
    pairs = list(itertools.combinations(found.terms, 2))
    whole = compare_pairs(found, pairs, 999)
    assert len(whole) == 6
    for pair in pairs:
        assert compare_pairs(found, [pair], 999)[pair] == whole[pair]
        turned = pair[::-1]
        p = compare_pairs(found, [turned], 999)[turned][1]
        assert p == pytest.approx(whole[pair][1], abs=0.08)


def test_seeds_of_equal_answers_are_one(made):
    own, other = np.random.default_rng(1).random((2, 40))
    single = compare_pairs(only(made, "coco2017_cap_val", {"a": own, "b": other}), [PAIR], 999)
    seeds = {"a-seed0": own, "a-seed1": own, "b": other}
    several = compare_pairs(only(made, "coco2017_cap_val", seeds), [PAIR], 999)
    assert several == single


@pytest.mark.parametrize("task", ["gqa", "pope", "coco2017_cap_val", "mme"])
def test_equal_rows_have_p_one(made, task):
    right = np.random.default_rng(0).integers(0, 2, 36)
    for values in (right, np.ones(36), np.zeros(36)):
        found = only(made, task, {"a": values, "b": values})
        assert compare_pairs(found, [PAIR])[PAIR][1] == 1
        assert discordant(found, *PAIR) == 0


def test_a_single_document_decides_nothing(made):
    for task in ("gqa", "coco2017_cap_val", "pope"):
        found = only(made, task, {"a": np.array([1]), "b": np.array([0])})
        assert compare_pairs(found, [PAIR])[PAIR][1] > 0.499


def test_a_large_difference_is_found_and_p_is_never_zero(made):
    found = only(made, "coco2017_cap_val", {"a": np.full(50, 2.0), "b": np.arange(50) / 50})
    test, p = compare_pairs(found, [PAIR], permutations=199)[PAIR]
    assert (test, p) == ("permutation", 1 / 200)


def test_images_with_many_questions_keep_the_level(made):
    stream = np.random.default_rng(4)
    clusters = np.repeat(np.arange(20), 6)
    ours, naive = 0, 0
    for _ in range(100):
        own, other = np.repeat(stream.random((2, 20)) < 0.5, 6, axis=1).astype(int)
        found = only(made, "gqa", {"a": own, "b": other}, clusters)
        test, p = compare_pairs(found, [PAIR], permutations=299)[PAIR]
        assert test.startswith("permutation")
        ours += p < 0.05
        naive += mcnemar_midp(int((own > other).sum()), int((own < other).sum())) < 0.05
    assert ours <= 11
    assert naive >= 25


@quiet
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_by_its_definition(ps):
    p = np.array(ps)
    adjusted = holm(p)
    order = np.argsort(p, kind="stable")
    running = 0.0
    for place, index in enumerate(order):
        running = max(running, min(1.0, (len(p) - place) * p[index]))
        assert adjusted[index] == pytest.approx(running)
    assert (adjusted >= p - 1e-12).all()
    assert (np.diff(adjusted[order]) >= -1e-12).all()


def test_holm_leaves_out_what_was_not_tested():
    adjusted = holm(np.array([0.01, np.nan, 0.04]))
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(adjusted[1])
    assert np.isnan(holm(np.array([np.nan]))).all()
    assert holm(np.array([])).size == 0
