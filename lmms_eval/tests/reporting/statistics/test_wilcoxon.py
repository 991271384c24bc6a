"""The paper's p-value, brute force, and nothing to test."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from otprune_lmms.reporting import published
from otprune_lmms.reporting.statistics.wilcoxon import wilcoxon_over_tasks

TABLE1 = "OTPrune arXiv:2602.20205v2 Table 1"


def rows(model):
    table = published.wide(published.load(source=TABLE1, model=model))
    return tuple(
        table.xs((name, ""), level=["method", "variant"]).iloc[0]
        for name in ("OTPrune", "DivPrune")
    )


def test_the_paper_s_p_value():
    ours = wilcoxon_over_tasks(*rows("LLaVA-1.5-13B"))
    printed = published.load(budget="statistic")["value"].item()
    assert printed == 0.028
    assert ours == pytest.approx(0.02796, abs=5e-6)
    assert round(ours, 3) == printed


@pytest.mark.parametrize(
    ("model", "exact", "approx", "corrected"),
    [
        ("LLaVA-1.5-7B", 0.1602, 0.1430, 0.1533),
        ("LLaVA-1.5-13B", 0.0269, 0.0252, 0.0280),
        ("LLaVA-NeXT-7B", 0.0137, 0.0142, 0.0162),
    ],
)
def test_every_block_by_every_method(model, exact, approx, corrected):
    own, other = rows(model)
    assert wilcoxon_over_tasks(own, other, method="exact") == pytest.approx(exact, abs=5.1e-5)
    plain = wilcoxon_over_tasks(own, other, correction=False)
    assert plain == pytest.approx(approx, abs=5.1e-5)
    assert wilcoxon_over_tasks(own, other) == pytest.approx(corrected, abs=5.1e-5)


def test_all_blocks_together():
    pairs = [rows(model) for model in ("LLaVA-1.5-7B", "LLaVA-1.5-13B", "LLaVA-NeXT-7B")]
    own, other = (
        pd.concat([p[i].set_axis([f"{n} {t}" for t in p[i].index]) for n, p in enumerate(pairs)])
        for i in (0, 1)
    )
    assert wilcoxon_over_tasks(own, other, correction=False) == pytest.approx(0.00115, abs=5.1e-6)
    assert wilcoxon_over_tasks(own, other) == pytest.approx(0.00119, abs=5.1e-6)


@pytest.mark.parametrize(
    ("model", "raw"), [("LLaVA-1.5-7B", 0.45), ("LLaVA-1.5-13B", 0.07), ("LLaVA-NeXT-7B", 0.06)]
)
def test_raw_differences_would_say_something_else(model, raw):
    lines = published.load(source=TABLE1, model=model)
    lines = lines[(lines["task"] != "") & (lines["variant"] == "")]
    table = lines.pivot_table(index="method", columns="task", values="score")
    gain = (table.loc["OTPrune"] - table.loc["DivPrune"]).round(6)
    moved = gain[gain != 0]
    p = stats.wilcoxon(moved, alternative="greater", correction=True, method="asymptotic").pvalue
    assert p == pytest.approx(raw, abs=0.015)
    assert wilcoxon_over_tasks(*rows(model)) < p - 0.03


def brute_force(gain, alternative):
    """The share of sign patterns whose rank sum is as extreme."""
    ranks = stats.rankdata(np.abs(gain))
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s)
        for signs in itertools.product([0, 1], repeat=len(gain))
    ]
    seen = ranks[gain > 0].sum()
    high = np.mean([one >= seen for one in sums])
    low = np.mean([one <= seen for one in sums])
    return {"greater": high, "less": low, "two-sided": min(1, 2 * min(high, low))}[alternative]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.lists(st.integers(-40, 40).filter(bool), min_size=1, max_size=7, unique_by=abs),
    st.sampled_from(["greater", "less", "two-sided"]),
)
def test_exact_p_against_all_sign_patterns(gain, alternative):
    base = pd.Series(100.0, index=[f"t{i}" for i in range(len(gain))])
    own = base + np.array(gain, float)
    p = wilcoxon_over_tasks(own, base, method="exact", alternative=alternative)
    assert p == pytest.approx(brute_force(np.array(gain), alternative))


def test_nothing_to_compare():
    same = pd.Series({"a": 1.0, "b": 2.0})
    assert np.isnan(wilcoxon_over_tasks(same, same))
    assert np.isnan(wilcoxon_over_tasks(same, same * np.nan))
    assert np.isnan(wilcoxon_over_tasks(same, same * 0))


def test_tasks_that_one_lacks_are_left_out():
    own = pd.Series({"a": 2.0, "b": 3.0, "c": 4.0, "d": np.nan})
    other = pd.Series({"c": 3.0, "b": 2.5, "a": 1.0, "d": 1.0, "e": 5.0})
    assert wilcoxon_over_tasks(own, other, method="exact") == pytest.approx(1 / 8)
