"""Distance ranks against score ranks on hand-made results."""

import numpy as np
import pandas as pd
import pytest

from analysis_frames import diagnostics_of, records_of, samples_of, together
from otprune_lmms.reporting.analysis.correlation import correlations
from otprune_lmms.reporting.analysis.levels import levels, times
from otprune_lmms.reporting.analysis.points import points, with_budget
from otprune_lmms.reporting.analysis.redraws import percentile_interval, redraws
from otprune_lmms.results.diagnostics import COLUMNS
from otprune_lmms.results.times import SELECTIONS

DRAWS = 200


def made(levels_by_method, tasks=("gqa",), documents=40, images=10, ratio=0.1):
    """Methods with a number of right answers and a distance each."""
    some, measured = [], []
    for task in tasks:
        some.append(samples_of(task, None, [1] * documents))
        for method, (right, distance) in levels_by_method.items():
            values = np.arange(documents) < right
            some.append(samples_of(task, method, values, ratio=ratio))
            measured.append(diagnostics_of(task, method, [distance] * images, ratio=ratio))
    return together(*measured), together(*some)


def found(diagnostics, samples, draws=DRAWS):
    return correlations(points(diagnostics, samples, records_of(samples), draws))


def line(table, task="all", quantity="exact_w2", subjects="all", against=None):
    chosen = table[
        (table["task"] == task)
        & (table["quantity"] == quantity)
        & (table["subjects"] == subjects)
        & (table["against"].isna() if against is None else table["against"] == against)
    ]
    assert len(chosen) == 1
    return chosen.iloc[0]


NEAR_IS_GOOD = {"otprune": (30, 0.1), "divprune": (20, 0.2), "random": (10, 0.3)}
NEAR_IS_BAD = {"otprune": (10, 0.1), "divprune": (20, 0.2), "random": (30, 0.3)}


@pytest.mark.parametrize(("methods", "sign"), [(NEAR_IS_GOOD, 1), (NEAR_IS_BAD, -1)])
def test_positive_where_nearer_goes_with_better(methods, sign):
    table = found(*made(methods, tasks=("gqa", "mmmu_val")))
    for task in ("gqa", "mmmu_val", "all"):
        for quantity in ("exact_w2", "coverage", "effective_rank"):
            one = line(table, task, quantity)
            assert one["value"] == pytest.approx(sign)
            assert one["p"] == pytest.approx(1 / 3)
            assert one["permutations"] == 6
            assert one["methods"] == 3
    assert line(table)["documents"] == 80
    assert line(table)["images"] == 20


def test_equal_quantities_differ_by_nothing():
    one = line(found(*made(NEAR_IS_GOOD)), quantity="coverage", against="exact_w2")
    assert (one["value"], one["low"], one["high"]) == pytest.approx((0, 0, 0))


def test_clear_levels_have_a_narrow_interval_and_noise_a_wide_one():
    clear = {"otprune": (40, 0.1), "divprune": (20, 0.2), "random": (0, 0.3)}
    one = line(found(*made(clear)))
    assert (one["low"], one["high"]) == pytest.approx((1, 1))
    noisy = {"otprune": (21, 0.1), "divprune": (20, 0.2), "random": (19, 0.3)}
    diagnostics, samples = made(noisy)
    # Each method is right on documents of its own.
    values = np.random.default_rng(0).random((3, 40)) < 0.5
    pruned = samples["method"].notna()
    samples.loc[pruned, "value"] = values.ravel().astype(float)
    one = line(found(diagnostics, samples))
    assert one["high"] - one["low"] > 0.9


def test_methods_that_tie_have_no_correlation():
    table = found(*made({"otprune": (20, 0.1), "divprune": (20, 0.2), "random": (20, 0.3)}))
    one = line(table, "gqa")
    assert np.isnan(one["value"])
    assert np.isnan(one["p"])
    assert not (table["task"] == "all").any()


def test_two_methods_are_too_few():
    assert found(*made({"otprune": (20, 0.1), "divprune": (10, 0.2)})).empty


def test_distance_and_score_of_an_image_move_together():
    # Right exactly where near: whatever images are drawn, better means nearer.
    documents = 30
    near = np.random.default_rng(1).random((3, documents)) < 0.5
    methods = ("otprune", "divprune", "random")
    samples = [samples_of("gqa", None, np.ones(documents))]
    measured = []
    for method, one in zip(methods, near, strict=True):
        samples.append(samples_of("gqa", method, one))
        measured.append(diagnostics_of("gqa", method, 1 - one))
    one = line(found(together(*measured), together(*samples)))
    assert (one["value"], one["low"]) == pytest.approx((1, 1))


def test_seeds_are_averaged():
    diagnostics, samples = made({"otprune": (30, 0.1), "divprune": (20, 0.2)})
    more = [samples_of("gqa", "random", np.arange(40) < n, seed=s) for s, n in ((0, 30), (1, 2))]
    far = [diagnostics_of("gqa", "random", [d] * 10, seed=s) for s, d in ((0, 0.0), (1, 0.8))]
    diagnostics, samples = together(diagnostics, *far), together(samples, *more)
    (one,) = points(diagnostics, samples, records_of(samples), 5)
    assert one.rows == ("otprune-0.1", "divprune-0.1", "random-0.1")
    assert one.measured["exact_w2"] == pytest.approx([0.1, 0.2, 0.4])
    assert one.score == pytest.approx([75, 50, 40])
    assert one.score_drawn.shape == (5, 3)


def test_the_subjects_of_figure_2_and_all_without_the_ends():
    names = ("first_k", "last_k", "uniform", "random", "divprune", "otprune")
    methods = {name: (4 * i, 1 - i / 10) for i, name in enumerate(names)}
    table = found(*made(methods))
    assert set(table["subjects"]) == {"all", "figure 2", "no ends"}
    assert line(table)["methods"] == 6
    assert line(table, subjects="figure 2")["methods"] == 5
    assert line(table, subjects="no ends")["methods"] == 4
    five = {name: methods[name] for name in names[:5]}
    assert set(found(*made(five))["subjects"]) == {"all", "no ends"}


def test_budgets_and_layers_are_not_mixed():
    near, few = made(NEAR_IS_GOOD, ratio=0.1), made(NEAR_IS_BAD, ratio=0.5)
    inside = samples_of("gqa", "otprune", np.ones(40), layer=2)
    table = found(together(near[0], few[0]), together(near[1], few[1].iloc[40:], inside))
    assert list(table[table["task"] == "all"]["budget"].unique()) == ["0.1", "0.5"]
    assert line(table[table["budget"] == "0.1"])["value"] == pytest.approx(1)
    assert line(table[table["budget"] == "0.5"])["value"] == pytest.approx(-1)


def test_images_that_were_not_answered_do_not_count():
    diagnostics, samples = made(NEAR_IS_GOOD)
    other = [diagnostics_of("gqa", m, [9.0], clusters=["elsewhere"]) for m in NEAR_IS_GOOD]
    (one,) = points(together(diagnostics, *other), samples, records_of(samples), 3)
    assert one.images == 10
    assert one.measured["exact_w2"] == pytest.approx([0.1, 0.2, 0.3])


def test_a_task_without_scores_is_left_out():
    diagnostics, samples = made(NEAR_IS_GOOD, tasks=("gqa", "mmmu_val"))
    records = records_of(samples)
    records.loc[records["task"] == "gqa", "value"] = np.nan
    assert [one.task for one in points(diagnostics, samples, records, 3)] == ["mmmu_val"]


def test_mme_keeps_its_categories_and_pairs():
    names = [("existence", i // 2) for i in range(12)] + [("count", i // 2) for i in range(4)]
    details = [{"category": c, "question_id": f"{c}/{i}"} for c, i in names]
    clusters = [one["question_id"] for one in details]
    samples, measured = [], []
    for method, right in ((None, 16), ("otprune", 14), ("divprune", 9), ("random", 3)):
        values = np.arange(16) % 16 < right
        samples.append(samples_of("mme", method, values, clusters, details=details))
        if method:
            shown = list(dict.fromkeys(clusters))
            measured.append(diagnostics_of("mme", method, [1 - right / 20] * 8, shown))
    samples = together(*samples)
    (one,) = points(together(*measured), samples, records_of(samples), 50)
    assert not np.isnan(one.score_drawn).any()
    # Always correct in "count" or always wrong in it: a redraw without it would score less.
    assert one.score_drawn[:, 0].min() > 0
    assert one.score[0] == pytest.approx(200 + 100)


def test_redraws_keep_the_strata_and_differ_between_tasks():
    group = np.array([0] * 5 + [1] * 3)
    drawn = redraws("gqa", group, 30)
    assert (drawn[:, :5].sum(1) == 5).all()
    assert (drawn[:, 5:].sum(1) == 3).all()
    assert (drawn == redraws("gqa", group, 30)).all()
    assert (drawn != redraws("pope", group, 30)).any()


def test_an_interval_without_redraws_is_unknown():
    assert all(np.isnan(v) for v in percentile_interval(np.array([np.nan])).values())
    assert percentile_interval(np.arange(101.0)) == {"low": 2.5, "high": 97.5}


def test_only_budgets_before_the_language_model_take_part():
    lines = [
        ("unpruned", None, None, None, None, 0),
        ("a", "x", 0.098, None, "kept", 0),
        ("b", "x", None, 56.0, "kept", 0),
        ("c", "x", 0.5, None, "flops", 0),
        ("d", "x", 0.5, None, "kept", 2),
        ("e", "x", None, None, None, 0),
    ]
    columns = ["row", "method", "keep_ratio", "k", "match", "layer"]
    found = with_budget(pd.DataFrame(lines, columns=columns))
    assert dict(zip(found["row"], found["budget"], strict=True)) == {
        "a": "0.098", "b": "k56", "c": "0.5 flops",
    }  # fmt: skip


def test_levels_are_means_over_benchmarks():
    diagnostics, samples = made(NEAR_IS_GOOD, tasks=("gqa", "mmmu_val"))
    diagnostics.loc[diagnostics["task"] == "gqa", "exact_w2"] += 1
    table = levels(points(diagnostics, samples, records_of(samples), DRAWS))
    by = table.set_index(["row", "quantity"])
    assert by.loc[("divprune-0.1", "exact_w2"), "value"] == pytest.approx(0.7)
    assert by.loc[("divprune-0.1", "coverage"), "value"] == pytest.approx(0.2)
    assert by.loc[("divprune-0.1", "coverage"), "images"] == 20


def test_times_are_medians_in_milliseconds():
    slow = diagnostics_of("gqa", "otprune", [0.1] * 4, seconds=np.array([0.001, 0.003, 0.002, 9]))
    table = times(slow[COLUMNS], slow[SELECTIONS.names])
    (one,) = table.to_dict("records")
    assert one["value"] == pytest.approx(2.5)
    assert one["images"] == 4
    assert isinstance(table, pd.DataFrame)
