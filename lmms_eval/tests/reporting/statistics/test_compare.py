"""Findings of whole experiments: points, families, gaps in the data."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from otprune_lmms.reporting.statistics.averages import (
    headline_scores,
    mean_of_ratios,
    ratio_of_means,
)
from otprune_lmms.reporting.statistics.compare import (
    ALL,
    AVERAGE_COLUMNS,
    INTERVAL_COLUMNS,
    PAIR_COLUMNS,
    find,
)
from otprune_lmms.reporting.statistics.page import page
from otprune_lmms.reporting.statistics.paired import holm

DOCUMENTS = {"gqa": 90, "pope": 60, "mme": 48, "coco2017_cap_val": 40}
SHARED = {"pope": np.arange(60) // 2}
RATES = {
    "unpruned": 0.9,
    "otprune-0.1": 0.7,
    "divprune-0.1": 0.4,
    "random-0.1-seed0": 0.4,
    "random-0.1-seed1": 0.5,
    "otprune-0.2": 0.8,
}


def answers(rates, documents, seed=0):
    """Right and wrong by setting and task, of documents that are as hard for every setting."""
    stream = np.random.default_rng(seed)
    hard = {task: stream.random(n) for task, n in documents.items()}
    own = {setting: {task: stream.random(n) for task, n in documents.items()} for setting in rates}
    return {
        setting: {
            task: (0.7 * hard[task] + 0.3 * own[setting][task] < rate).astype(float)
            for task in documents
        }
        for setting, rate in rates.items()
    }


@pytest.fixture(scope="module")
def data(made):
    right = {
        (model, setting): tasks
        for model, seed in (("small", 0), ("large", 1))
        for setting, tasks in answers(RATES, DOCUMENTS, seed).items()
    }
    return made.experiment(right, SHARED)


@pytest.fixture(scope="module")
def found(data):
    return find(*data, draws=400, permutations=499)


def test_points_are_those_of_the_records(data, found):
    table = headline_scores(data[0])
    assert tuple(found.intervals.columns) == INTERVAL_COLUMNS
    assert tuple(found.averages.columns) == AVERAGE_COLUMNS
    assert len(found.intervals) == table.notna().to_numpy().sum() == 2 * 5 * 4
    for line in found.intervals.itertuples():
        assert line.value == table.loc[(line.model, line.row), line.task]
        assert line.low <= line.value <= line.high
        assert line.low < line.high or line.row == "unpruned"
        own = found.models[line.model].tasks[line.task].of(line.row).point(line.row)
        assert own == pytest.approx(line.value)
    for line in found.averages.itertuples():
        own, base = table.loc[(line.model, line.row)], table.loc[(line.model, "unpruned")]
        rule = {"mean_of_ratios": mean_of_ratios, "ratio_of_means": ratio_of_means}[line.rule]
        assert line.value == rule(own, base)
        assert line.low <= line.value <= line.high
        assert line.tasks.split() == list(DOCUMENTS)
        assert (line.low == line.high == 100) == (line.row == "unpruned")


def test_counts_of_documents_and_images(found):
    first = found.intervals.drop_duplicates("task").set_index("task")
    assert first["documents"].to_dict() == {
        "gqa": 90,
        "pope": 60,
        "mme": 32,
        "coco2017_cap_val": 40,
    }
    assert first["clusters"].to_dict() == {
        "gqa": 90,
        "pope": 30,
        "mme": 16,
        "coco2017_cap_val": 40,
    }


def test_every_pair_of_a_budget_is_compared_on_every_task(data, found):
    table = headline_scores(data[0])
    assert tuple(found.pairs.columns) == (*PAIR_COLUMNS, "detectable")
    assert not found.pairs.duplicated(["model", "budget", "task", "a", "b"]).any()
    # 3 pairs of methods and 4 with the unpruned model; 4 tasks and 2 averages; 2 models.
    assert len(found.pairs) == 2 * 6 * 7
    for line in found.pairs.itertuples():
        assert line.low <= line.difference <= line.high
        if line.task in DOCUMENTS:
            a, b = (table.loc[(line.model, row), line.task] for row in (line.a, line.b))
            assert line.difference == pytest.approx(a - b)
    tests = found.pairs.groupby("task")["test"].unique().to_dict()
    assert set(tests["gqa"]) == {"mcnemar-midp", "permutation"}
    assert set(tests["pope"]) <= {"permutation", "permutation-exact"}
    seeds = found.pairs[(found.pairs["task"] == "gqa") & (found.pairs["a"] == "random-0.1")]
    assert set(seeds["test"]) == {"permutation"}
    assert set(found.pairs.loc[found.pairs["task"] == "all", "test"]) == {"bootstrap"}


def test_the_difference_of_averages_is_that_of_the_table(found):
    wide = found.averages.set_index(["model", "row", "rule"])["value"]
    for rule, name in ALL.items():
        for line in found.pairs[found.pairs["task"] == name].itertuples():
            gap = wide[line.model, line.a, rule] - wide[line.model, line.b, rule]
            assert line.difference == pytest.approx(gap)
            assert line.documents == 90 + 60 + 32 + 40
            assert pd.isna(line.discordant)


def test_holm_s_families_are_pairs_of_one_task_and_the_unpruned_apart(found):
    keys = ["model", "budget", "task"]
    sizes = set()
    for _, some in found.pairs.groupby([*keys, found.pairs["b"] == "unpruned"]):
        np.testing.assert_allclose(some["p_holm"], holm(some["p"].to_numpy(float)))
        sizes.add(len(some))
    assert sizes == {1, 3}


def test_large_differences_are_found_and_detectable_ones_make_sense(found):
    sure = found.pairs[(found.pairs["a"] == "divprune-0.1") & (found.pairs["b"] == "unpruned")]
    assert (sure["p_holm"] < 0.05).all()
    exact = found.pairs[(found.pairs["test"] == "mcnemar-midp") & found.pairs["detectable"].notna()]
    share = 100 * exact["discordant"].astype(float) / exact["documents"].astype(float)
    assert len(exact) > 5
    assert (exact["detectable"] <= share).all()
    width = (norm.ppf(0.975) + norm.ppf(0.8)) / (2 * norm.ppf(0.975))
    whole = found.pairs[found.pairs["task"] == "all"]
    ratio = whole["detectable"] / (whole["high"] - whole["low"])
    assert ratio.between(0.8 * width, 1.25 * width).all()


def test_the_same_data_gives_the_same_findings(data, found):
    records, samples = data
    again = find(records, samples.sample(frac=1, random_state=0), draws=400, permutations=499)
    keys = ["model", "budget", "task", "a", "b"]
    left, right = (one.pairs.set_index(keys).sort_index() for one in (found, again))
    pd.testing.assert_frame_equal(left, right)
    fewer = samples[samples["task"] != "gqa"]
    part = find(records[records["task"] != "gqa"], fewer, draws=400, permutations=499)
    kept = found.pairs[found.pairs["task"].isin(["pope", "mme"])].set_index(keys).sort_index()
    same = part.pairs[part.pairs["task"].isin(["pope", "mme"])].set_index(keys).sort_index()
    pd.testing.assert_frame_equal(kept, same)


def test_samples_that_do_not_give_the_score_are_not_used(data):
    records, samples = data
    wrong = records.copy()
    place = (wrong["model"] == "small") & (wrong["row"] == "otprune-0.1") & (wrong["task"] == "gqa")
    wrong.loc[place, "value"] += 0.01
    found = find(wrong, samples, draws=200, permutations=99)
    mine = found.intervals.set_index(["model", "row", "task"])
    assert mine.loc[("small", "otprune-0.1", "gqa"), ["low", "high"]].isna().all()
    assert mine.loc[("large", "otprune-0.1", "gqa"), ["low", "high"]].notna().all()
    averages = found.averages.set_index(["model", "row"])
    assert averages.loc[("small", "otprune-0.1"), "low"].isna().all()
    assert averages.loc[("small", "divprune-0.1"), "low"].notna().all()
    pairs = found.pairs[(found.pairs["model"] == "small") & (found.pairs["a"] == "otprune-0.1")]
    assert "gqa" not in set(pairs["task"])
    assert set(pairs.loc[pairs["task"] == "all", "test"]) == {"none"}
    text = page(found, "t", {}, {})
    assert "OTPrune 0.1, GQA: no interval or test (records say" in text


def test_a_metric_that_is_missing_leaves_its_task_out(data):
    records, samples = data
    records = records.copy()
    captions = records["task"] == "coco2017_cap_val"
    records.loc[captions, "value"] = np.nan
    samples = samples.copy()
    samples.loc[samples["task"] == "coco2017_cap_val", "value"] = np.nan
    found = find(records, samples, draws=200, permutations=99)
    assert set(found.intervals["task"]) == {"gqa", "pope", "mme"}
    assert set(found.averages["tasks"]) == {"gqa pope mme"}
    assert found.averages["low"].notna().all()
    assert set(found.pairs["task"]) == {"gqa", "pope", "mme", *ALL.values()}


def test_pairs_are_compared_on_the_documents_of_both(made):
    right = answers({"unpruned": 0.9, "otprune-0.1": 0.6, "divprune-0.1": 0.6}, {"gqa": 80})
    right["divprune-0.1"]["gqa"][:10] = np.nan
    found = find(*made.experiment({("m", c): t for c, t in right.items()}), draws=300)
    sizes = found.intervals.set_index("row")["documents"].to_dict()
    assert sizes == {"unpruned": 80, "otprune-0.1": 80, "divprune-0.1": 70}
    pair = found.pairs[(found.pairs["task"] == "gqa") & (found.pairs["b"] == "divprune-0.1")]
    own = right["otprune-0.1"]["gqa"][10:].mean() - right["divprune-0.1"]["gqa"][10:].mean()
    assert pair["difference"].item() == pytest.approx(100 * own)
    assert pair["documents"].item() == 70
    assert "rows differ in their documents" in page(found, "t", {}, {})


def test_without_an_unpruned_row_there_are_scores_and_pairs(made):
    right = answers({"otprune-0.1": 0.7, "divprune-0.1": 0.4}, {"gqa": 50})
    found = find(*made.experiment({("m", c): t for c, t in right.items()}), draws=200)
    assert found.averages.empty
    assert list(found.averages.columns) == list(AVERAGE_COLUMNS)
    assert found.pairs["task"].tolist() == ["gqa"]
    assert "No unpruned row" in page(found, "t", {}, {})


def test_the_unpruned_model_alone(made):
    right = answers({"unpruned": 0.7}, {"gqa": 50, "pope": 20})
    found = find(*made.experiment({("m", c): t for c, t in right.items()}), draws=200)
    assert found.pairs.empty
    assert len(found.intervals) == 2
    assert "no methods to compare" in page(found, "t", {}, {})


def test_one_document_has_a_score_and_no_interval(made):
    right = {("m", setting): {"gqa": np.array([1.0])} for setting in ("unpruned", "otprune-0.1")}
    found = find(*made.experiment(right), draws=100)
    assert found.intervals["value"].tolist() == [100, 100]
    assert found.intervals[["low", "high"]].isna().all(axis=None)
    assert found.averages[["low", "high"]].isna().all(axis=None)
    assert "no interval or test (one image)" in page(found, "t", {}, {})


def test_answers_that_are_all_alike(made):
    right = {("m", setting): {"gqa": np.ones(40)} for setting in ("unpruned", "a-0.1", "b-0.1")}
    found = find(*made.experiment(right), draws=100)
    assert (found.intervals["low"] == 100).all()
    assert (found.intervals["high"] == 100).all()
    assert (found.pairs["difference"] == 0).all()
    assert (found.pairs["p_holm"] == 1).all()
    assert found.pairs["detectable"].isna().all()
    text = page(found, "t", {}, {})
    assert "up to 7.5 % of the documents (rule of three" in text


def test_an_unpruned_score_of_zero_leaves_the_mean_of_ratios(made):
    settings = {"unpruned": (0.0, 0.9), "otprune-0.1": (0.4, 0.6)}
    right = {
        ("m", setting): {
            "gqa": (np.arange(40) < 40 * low).astype(float),
            "seedbench": (np.arange(40) < 40 * high).astype(float),
        }
        for setting, (low, high) in settings.items()
    }
    found = find(*made.experiment(right), draws=200)
    own = found.averages.set_index(["row", "rule"]).loc["otprune-0.1"]
    assert own.loc["mean_of_ratios", "tasks"] == "seedbench"
    assert own.loc["mean_of_ratios", "value"] == pytest.approx(100 * 6 / 9)
    assert own.loc["ratio_of_means", "tasks"] == "gqa seedbench"
    assert own.loc["ratio_of_means", "value"] == pytest.approx(100 * 10 / 9)
    assert own["low"].notna().all()
