"""Averages and ranks: the printed ones, closed forms, awkward tables."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otprune_lmms.reporting import published
from otprune_lmms.reporting.statistics.averages import (
    PAPER_ONE_SHOT,
    average_rank,
    headline_scores,
    mean_of_ratios,
    one_shot_rank,
    ratio_of_means,
    shared_tasks,
)
from otprune_lmms.results.records import COLUMNS

TABLE1 = "OTPrune arXiv:2602.20205v2 Table 1"
MODELS = ("LLaVA-1.5-7B", "LLaVA-1.5-13B", "LLaVA-NeXT-7B")
KEY = ["method", "variant"]


def block(model):
    """Scores of a block of Table 1 without the unpruned row, and its printed ranks."""
    numbers = published.load(source=TABLE1, model=model)
    table = published.wide(numbers)
    table.index = table.index.droplevel([n for n in table.index.names if n not in KEY])
    printed = numbers[numbers["metric"].str.startswith("rank_")]
    ranks = printed.pivot_table(index=KEY, columns="metric", values="value")
    return table, table.drop(index="Original", level="method"), ranks


@pytest.mark.parametrize("model", MODELS)
def test_the_paper_s_average_ranks(model):
    _, table, printed = block(model)
    ours = average_rank(table).reindex(printed.index)
    assert len(printed) == len(table)
    np.testing.assert_allclose(ours.round(2), printed["rank_all"], atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_the_paper_s_one_shot_ranks(model):
    _, table, printed = block(model)
    methods = table.index.get_level_values("method")
    plain = table.index.get_level_values("variant") == ""
    ours = one_shot_rank(table, methods.isin(PAPER_ONE_SHOT) & plain)
    shown = printed["rank_oneshot"].dropna()
    assert len(shown) == 4
    assert ours.notna().sum() == 4
    np.testing.assert_allclose(ours.reindex(shown.index).round(2), shown, atol=1e-9)


@pytest.mark.parametrize(
    ("model", "divprune", "otprune"),
    [
        ("LLaVA-1.5-7B", 91.27, 92.53),
        ("LLaVA-1.5-13B", 91.77, 93.86),
        ("LLaVA-NeXT-7B", 92.96, 95.2),
    ],
)
def test_mean_of_ratios_of_the_paper_s_first_table(model, divprune, otprune):
    table, _, _ = block(model)
    base = table.loc[("Original", "")]
    assert mean_of_ratios(table.loc[("DivPrune", "")], base) == pytest.approx(divprune, abs=0.005)
    assert mean_of_ratios(table.loc[("OTPrune", "")], base) == pytest.approx(otprune, abs=0.005)


def tops(method, budget):
    """A row of TOPS' Table 11 by benchmark, and its printed averages."""
    lines = published.load(source="TOPS arXiv:2606.27161 Table 11", budget=["full", budget])
    own = lines[(lines["method"] == method)].set_index("benchmark")["value"]
    averages = ["avg_acc", "relative_avg"]
    return own.drop(averages), own["relative_avg"]


@pytest.mark.parametrize(
    ("method", "budget", "of_means", "of_ratios"),
    [("TOPS", 128, 98.3, 98.0), ("VisionZip", 64, 93.0, 93.3), ("DivPrune", 64, 93.6, 93.1)],
)
def test_the_two_rules_on_rows_of_tops(method, budget, of_means, of_ratios):
    base, whole = tops("Original", "full")
    assert whole == 100
    own, printed = tops(method, budget)
    assert len(own) == 8
    assert round(ratio_of_means(own, base), 1) == of_means
    assert round(mean_of_ratios(own, base), 1) == of_ratios
    assert ratio_of_means(own, base) == pytest.approx(printed, abs=0.13)


def test_both_rules_by_hand():
    base = pd.Series({"gqa": 50.0, "mme": 1000.0})
    own = pd.Series({"gqa": 25.0, "mme": 900.0})
    assert mean_of_ratios(own, base) == pytest.approx(70.0)
    assert ratio_of_means(own, base) == pytest.approx(70.0)
    own["gqa"] = 100.0
    assert mean_of_ratios(own, base) == pytest.approx(145.0)
    assert ratio_of_means(own * [1, 0.5], base) == pytest.approx(122.5)


def test_tasks_that_one_lacks_do_not_count():
    base = pd.Series({"gqa": 50.0, "pope": np.nan, "mme": 1000.0, "vizwiz": 10.0})
    own = pd.Series({"pope": 80.0, "gqa": 40.0, "mme": np.nan, "new": 1.0})
    assert shared_tasks(own, base) == ["gqa"]
    assert mean_of_ratios(own, base) == pytest.approx(80.0)
    assert ratio_of_means(own, base) == pytest.approx(80.0)


def test_an_unpruned_zero_counts_in_means_only():
    base = pd.Series({"a": 0.0, "b": 50.0})
    own = pd.Series({"a": 10.0, "b": 40.0})
    assert mean_of_ratios(own, base) == pytest.approx(80.0)
    assert ratio_of_means(own, base) == pytest.approx(100.0)
    assert np.isnan(mean_of_ratios(own[["a"]], base))
    assert np.isnan(ratio_of_means(own[["a"]], base))


@pytest.mark.parametrize("rule", [mean_of_ratios, ratio_of_means])
def test_without_a_common_task_there_is_no_average(rule):
    assert np.isnan(rule(pd.Series({"a": 1.0}), pd.Series({"b": 1.0})))
    assert np.isnan(rule(pd.Series(dtype=float), pd.Series(dtype=float)))


tables = st.integers(1, 5).flatmap(
    lambda tasks: st.lists(
        st.lists(st.integers(0, 4), min_size=tasks, max_size=tasks), min_size=1, max_size=6
    )
)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(tables)
def test_ranks_add_up_and_ties_share(values):
    table = pd.DataFrame(np.array(values, float))
    ranks = average_rank(table)
    assert ranks.mean() == pytest.approx((len(table) + 1) / 2)
    for task in table:
        one = average_rank(table[[task]])
        for i in table.index:
            above = (table[task] > table[task][i]).sum()
            same = (table[task] == table[task][i]).sum()
            assert one[i] == pytest.approx(above + (same + 1) / 2)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(tables, st.floats(0.1, 10))
def test_the_mean_of_ratios_knows_no_units(values, factor):
    base = pd.Series(np.array(values[0], float) + 1)
    own = pd.Series(np.array(values[-1], float))
    units = pd.Series(factor ** np.arange(len(base)))
    assert mean_of_ratios(own * units, base * units) == pytest.approx(mean_of_ratios(own, base))
    assert mean_of_ratios(base, base) == pytest.approx(100)
    assert ratio_of_means(base, base) == pytest.approx(100)


def test_ranks_need_tasks_that_all_rows_have():
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [9.0, np.nan, 1.0]}, index=["x", "y", "z"])
    assert average_rank(table).to_dict() == {"x": 3, "y": 2, "z": 1}
    assert average_rank(table[["b"]]).isna().all()
    assert average_rank(table.iloc[:0]).empty


def test_one_shot_rows_must_be_named_one_by_one():
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    assert one_shot_rank(table, [True, False, True]).fillna(0).tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="one_shot must have 3 values"):
        one_shot_rank(table, [True, False])


def record(row, setting, task, metric, value, model="m"):
    line = dict.fromkeys(COLUMNS)
    return line | {
        "model": model,
        "row": row,
        "setting": setting,
        "task": task,
        "metric": metric,
        "value": value,
    }


def test_scores_are_headlines_in_shown_units_with_seeds_averaged():
    lines = [
        record("unpruned", "unpruned", "pope", "pope_accuracy", 0.1),
        record("unpruned", "unpruned", "pope", "pope_f1_score", 0.9),
        record("unpruned", "unpruned", "gqa", "exact_match", 0.5),
        record("random", "random-seed0", "pope", "pope_f1_score", 0.6),
        record("random", "random-seed1", "pope", "pope_f1_score", 0.7),
        record("random", "random-seed0", "gqa", "exact_match", 0.2),
        record("random", "random-seed1", "gqa", "exact_match", np.nan),
        record("unpruned", "unpruned", "mine", "odd", 3.0),
        record("unpruned", "unpruned", "mine", "even", 4.0),
        record("unpruned", "unpruned", "gqa", "exact_match", 0.4, model="b"),
    ]
    table = headline_scores(pd.DataFrame(lines, columns=COLUMNS).astype({"value": float}))
    assert list(table.index) == [("m", "unpruned"), ("m", "random"), ("b", "unpruned")]
    assert list(table.columns) == ["pope", "gqa", "mine"]
    assert table.loc[("m", "unpruned")].tolist() == pytest.approx([90, 50, 3])
    assert table.loc[("m", "random"), "pope"] == pytest.approx(65)
    assert np.isnan(table.loc[("m", "random"), "gqa"])
    assert table.loc[("b", "unpruned")].isna().tolist() == [True, False, True]


def test_a_seed_without_the_task_leaves_no_score():
    lines = [
        record("random", "random-seed0", "gqa", "exact_match", 0.2),
        record("random", "random-seed0", "pope", "pope_f1_score", 0.6),
        record("random", "random-seed1", "pope", "pope_f1_score", 0.7),
    ]
    table = headline_scores(pd.DataFrame(lines, columns=COLUMNS).astype({"value": float}))
    assert np.isnan(table.loc[("m", "random"), "gqa"])
    assert table.loc[("m", "random"), "pope"] == pytest.approx(65)


def test_a_row_whose_metrics_are_all_missing_stays():
    lines = [
        record("unpruned", "unpruned", "coco2017_cap_val", "coco_CIDEr", np.nan),
        record("unpruned", "unpruned", "coco2017_cap_val", "coco_METEOR", np.nan),
    ]
    table = headline_scores(pd.DataFrame(lines, columns=COLUMNS).astype({"value": float}))
    assert table.shape == (1, 1)
    assert table.isna().all(axis=None)
