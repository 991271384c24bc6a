"""Intervals against closed forms, clusters, strata, pairs and seeds."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from otprune_lmms.reporting.statistics import bootstrap
from otprune_lmms.reporting.statistics.averages import mean_of_ratios, ratio_of_means
from otprune_lmms.reporting.statistics.bootstrap import (
    bootstrap_p,
    cluster_counts,
    draw_scores,
    interval,
    relative_draws,
    task_seed,
)
from otprune_lmms.reporting.statistics.gather import gather
from otprune_lmms.reporting.statistics.headlines import resampled

quiet = settings(deadline=None, max_examples=40, derandomize=True)


def only(made, task, seeds, clusters=None):
    """The samples of one task, all rows in one group."""
    frames = [
        made.seed_samples(task, right, clusters).assign(
            row=setting.partition("-seed")[0], setting=setting
        )
        for setting, right in seeds.items()
    ]
    (found,) = gather(task, pd.concat(frames, ignore_index=True))
    return found


def test_the_draws_of_a_share_are_binomial(made):
    right = np.array([1] * 30 + [0] * 20)
    drawn = draw_scores(only(made, "gqa", {"a": right}), draws=20_000)["a"]
    exact = stats.binom(50, 0.6)
    # The bootstrap of a mean of 0 and 1 has this distribution exactly.
    seen = np.searchsorted(np.sort(drawn), 2 * np.arange(51) + 1e-9) / len(drawn)
    assert np.abs(seen - exact.cdf(np.arange(51))).max() < 0.012
    low, high = interval(drawn)
    assert low == pytest.approx(2 * exact.ppf(0.025), abs=2.01)
    assert high == pytest.approx(2 * exact.ppf(0.975), abs=2.01)


def test_the_interval_of_a_mean_is_the_normal_one(made):
    values = np.random.default_rng(3).gamma(2, 1, 400)
    found = only(made, "coco2017_cap_val", {"a": values})
    low, high = interval(draw_scores(found, draws=20_000)["a"])
    error = 100 * values.std() / 20
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.03)
    assert (high + low) / 2 == pytest.approx(100 * values.mean(), abs=0.1 * error)


def test_repeated_documents_of_one_image_say_nothing_new(made):
    right = np.random.default_rng(0).integers(0, 2, 60)
    single = only(made, "gqa", {"a": right})
    often = np.repeat(right, 4)
    together = only(made, "gqa", {"a": often}, np.repeat(np.arange(60), 4))
    apart = only(made, "gqa", {"a": often})
    widths = [np.std(draw_scores(one, 8000)["a"]) for one in (single, together, apart)]
    assert together.clusters == 60
    assert apart.clusters == 240
    assert widths[1] == pytest.approx(widths[0], rel=1e-9)
    assert widths[2] == pytest.approx(widths[0] / 2, rel=0.04)


def test_clusters_of_unlike_size_keep_their_documents(made):
    clusters = np.array([0, 0, 0, 0, 0, 1, 2])
    found = only(made, "gqa", {"a": np.array([1, 1, 1, 1, 1, 0, 0])}, clusters)
    drawn = draw_scores(found, 500)["a"]
    # With c draws of the large one the score is 5c / (5c + 3 - c).
    possible = [100 * 5 * c / (5 * c + 3 - c) for c in range(4)]
    assert set(np.round(drawn, 6)) == set(np.round(possible, 6))


def test_mme_draws_within_categories_and_keeps_pairs(made):
    right = np.random.default_rng(1).integers(0, 2, 36)
    found = only(made, "mme", {"a": right})
    assert found.clusters == 12
    assert np.bincount(found.stratum).tolist() == [6, 6]
    for counts in cluster_counts(found.stratum, 50, 0):
        assert (counts[:, found.stratum == 0].sum(axis=1) == 6).all()
        assert (counts[:, found.stratum == 1].sum(axis=1) == 6).all()
    frame = made.seed_samples("mme", right).set_index("doc_id").loc[found.documents]
    counts = next(cluster_counts(found.stratum, 50, task_seed("mme", 0)))
    slow = resampled("mme", frame, counts[:, found.cluster])
    np.testing.assert_allclose(draw_scores(found, 50)["a"], slow, atol=1e-9)


@pytest.mark.parametrize("task", ["gqa", "pope", "coco2017_cap_val"])
def test_draws_are_the_headline_of_the_drawn_documents(made, task):
    stream = np.random.default_rng(2)
    right = stream.integers(0, 2, 40)
    clusters = stream.integers(0, 15, 40)
    found = only(made, task, {"a": right}, clusters)
    counts = next(cluster_counts(found.stratum, 60, task_seed(task, 7)))
    slow = resampled(task, made.seed_samples(task, right), counts[:, found.cluster])
    np.testing.assert_allclose(draw_scores(found, 60, seed=7)["a"], slow, atol=1e-9)


def test_blocks_do_not_change_the_draws(monkeypatch):
    stratum = np.array([0, 1, 0, 1, 1, 0, 0])
    whole = np.concatenate(list(cluster_counts(stratum, 101, 5)))
    monkeypatch.setattr(bootstrap, "_BLOCK", 30)
    blocks = list(cluster_counts(stratum, 101, 5))
    assert len(blocks) > 20
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_rows_are_paired_and_tasks_are_not(made):
    right = np.random.default_rng(0).integers(0, 2, 80)
    better = np.where(np.arange(80) < 8, 1, right)
    seeds = {"a": right, "b": better, "c": right}
    drawn = draw_scores(only(made, "gqa", seeds))
    np.testing.assert_array_equal(drawn["a"], drawn["c"])
    assert (drawn["b"] >= drawn["a"]).all()
    assert np.std(drawn["b"] - drawn["a"]) < 0.6 * np.std(drawn["a"])
    other = draw_scores(only(made, "seedbench", seeds))
    assert abs(np.corrcoef(drawn["a"], other["a"])[0, 1]) < 0.1
    again = draw_scores(only(made, "gqa", {"a": right}))
    np.testing.assert_array_equal(drawn["a"], again["a"])
    assert (draw_scores(only(made, "gqa", seeds), seed=1)["a"] != drawn["a"]).any()


def test_seeds_are_averaged_inside_each_draw(made):
    stream = np.random.default_rng(0)
    seeds = {f"random-seed{i}": stream.integers(0, 2, 50) for i in range(3)}
    found = only(made, "pope", seeds)
    assert list(found.terms) == ["random"]
    drawn = draw_scores(found, 200)["random"]
    each = [draw_scores(only(made, "pope", {k: v}), 200)["random"] for k, v in seeds.items()]
    np.testing.assert_allclose(drawn, np.mean(each, axis=0))
    assert found.point("random") == pytest.approx(
        100
        * np.mean([made.stock_score("pope", made.seed_samples("pope", v)) for v in seeds.values()])
    )


def test_documents_without_a_value_are_not_drawn(made):
    right = np.array([1.0, np.nan, 0.0, 1.0, np.nan])
    found = only(made, "gqa", {"a": right})
    assert found.documents.tolist() == [0, 2, 3]
    assert found.clusters == 3
    assert not np.isnan(draw_scores(found)["a"]).any()
    empty = made.seed_samples("gqa", np.full(3, np.nan)).assign(row="a", setting="a")
    assert gather("gqa", empty) == []


def test_rows_with_other_documents_are_apart(made):
    frames = [
        made.seed_samples("gqa", np.array(right)).assign(row=row, setting=row)
        for row, right in {"a": [1, 0, 1.0], "b": [1, 0, np.nan], "c": [0, 0, 1.0]}.items()
    ]
    groups = gather("gqa", pd.concat(frames, ignore_index=True))
    assert [sorted(group.terms) for group in groups] == [["a", "c"], ["b"]]


def test_a_document_without_an_image_is_a_cluster_of_its_own(made):
    frame = made.seed_samples("gqa", np.ones(5), np.array([0, 0, 1, 1, 2]))
    frame.loc[[2, 3], "cluster"] = ""
    (found,) = gather("gqa", frame.assign(row="a", setting="a"))
    assert found.clusters == 4
    assert not found.alone


@pytest.mark.parametrize("right", [[1.0], [1.0] * 30, [0.0] * 30])
def test_one_document_or_equal_ones_have_no_width(made, right):
    drawn = draw_scores(only(made, "gqa", {"a": np.array(right)}), 100)["a"]
    assert interval(drawn) == (100 * right[0], 100 * right[0])


def test_an_interval_needs_values():
    drawn = np.arange(1000.0)
    assert interval(drawn) == pytest.approx((24.975, 974.025))
    few = np.where(drawn < 40, np.nan, drawn)
    assert interval(few)[0] > 40
    assert np.isnan(interval(np.where(drawn < 60, np.nan, drawn))).all()
    assert np.isnan(bootstrap_p(np.where(drawn < 60, np.nan, drawn)))
    assert np.isnan(interval(np.array([]))).all()
    for level in (0, 1, 1.5, np.nan):
        with pytest.raises(ValueError, match=r"level must lie in \(0, 1\)"):
            interval(drawn, level)


@quiet
@given(st.integers(0, 400), st.integers(0, 30))
def test_p_and_interval_agree(below, at):
    drawn = np.concatenate([np.full(below, -1.0), np.zeros(at), np.ones(1999 - below - at)])
    p = bootstrap_p(drawn)
    fewer = min(below + at, 1999 - below)
    assert p == pytest.approx(min(1, 2 * (fewer + 1) / 2000))
    low, high = interval(drawn)
    if p < 0.049:
        assert low > 0 or high < 0
    if p > 0.053:
        assert low <= 0 <= high


def test_p_is_the_normal_one_and_never_zero():
    drawn = 2 + np.random.default_rng(0).normal(size=200_000)
    assert bootstrap_p(drawn) == pytest.approx(2 * stats.norm.sf(2), rel=0.05)
    assert bootstrap_p(np.full(99, 5.0)) == pytest.approx(0.02)
    assert bootstrap_p(np.zeros(99)) == 1


@pytest.mark.parametrize(
    ("rule", "plain"), [("mean_of_ratios", mean_of_ratios), ("ratio_of_means", ratio_of_means)]
)
def test_relative_draws_are_the_average_of_each_draw(rule, plain):
    stream = np.random.default_rng(0)
    own = {task: stream.random(50) * 100 for task in ("gqa", "mme", "pope")}
    base = {task: stream.random(50) * 100 for task in ("pope", "extra", "gqa", "mme")}
    slow = [
        plain(
            pd.Series({t: v[i] for t, v in own.items()}),
            pd.Series({t: v[i] for t, v in base.items()}),
        )
        for i in range(50)
    ]
    np.testing.assert_allclose(relative_draws(own, base, rule), slow)


def test_relative_draws_by_zero_are_none():
    own = {"gqa": np.array([1.0, 1.0])}
    base = {"gqa": np.array([0.0, 2.0])}
    for rule in ("mean_of_ratios", "ratio_of_means"):
        found = relative_draws(own, base, rule)
        assert np.isnan(found[0])
        assert found[1] == 50
    with pytest.raises(ValueError, match="rule must be"):
        relative_draws(own, base, "mean")
    with pytest.raises(ValueError, match="at least one task"):
        relative_draws({}, base, "mean_of_ratios")


@pytest.mark.parametrize(("stratum", "draws"), [([], 10), ([0, 0], 0)])
def test_impossible_draws_are_refused(stratum, draws):
    with pytest.raises(ValueError, match="must be at least 1"):
        next(cluster_counts(np.array(stratum, int), draws, 0))


def test_intervals_cover_as_often_as_they_say(made):
    stream = np.random.default_rng(11)
    clusters = np.repeat(np.arange(60), 3)
    hits = 0
    for seed in range(100):
        # Documents of an image are alike: an interval over documents would cover far less.
        image = stream.random(60) < 0.6
        right = np.where(stream.random(180) < 0.8, np.repeat(image, 3), stream.random(180) < 0.6)
        found = only(made, "gqa", {"a": right.astype(float)}, clusters)
        low, high = interval(draw_scores(found, 300, seed)["a"])
        hits += low <= 60 <= high
    assert 88 <= hits <= 99
