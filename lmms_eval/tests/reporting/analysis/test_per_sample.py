"""Effects on single answers, where the truth is known."""

import numpy as np
import pytest
import statsmodels.formula.api as smf

from analysis_frames import diagnostics_of, samples_of, together
from otprune_lmms.reporting.analysis.per_sample import (
    ACROSS,
    RANDOM_DRAWS,
    SAME,
    outcomes,
    per_sample,
)

METHODS = ("otprune", "divprune", "uniform")
DOCUMENTS = 24


def made(distance, value, task="gqa", methods=METHODS):
    """Distances and values [methods documents]."""
    samples = [samples_of(task, None, np.ones(distance.shape[1]))]
    measured = []
    for method, near, right in zip(methods, distance, value, strict=True):
        samples.append(samples_of(task, method, right))
        measured.append(diagnostics_of(task, method, near))
    return together(*measured), together(*samples)


def effect(table, comparison, quantity="exact_w2", **where):
    chosen = table[(table["comparison"] == comparison) & (table["quantity"] == quantity)]
    for name, value in where.items():
        chosen = chosen[chosen[name] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]


def noise(*shape):
    return np.random.default_rng(5).normal(size=shape)


def test_a_linear_effect_is_found_exactly():
    distance = noise(3, DOCUMENTS)
    table = per_sample(*made(distance, 0.5 - 0.07 * distance))
    for comparison in (ACROSS, SAME):
        one = effect(table, comparison)
        assert one["value"] / one["deviation"] == pytest.approx(7)
        assert one["low"] <= one["value"] <= one["high"]
        assert (one["answers"], one["clusters"]) == (3 * DOCUMENTS, DOCUMENTS)
        # Less of it is better for distances, more for the rank: the sign means the same.
        assert effect(table, comparison, "effective_rank")["value"] == pytest.approx(one["value"])


def test_the_level_of_a_method_explains_nothing():
    distance = noise(3, DOCUMENTS) + 10 * np.arange(3)[:, None]
    value = noise(4, DOCUMENTS)[1:] * 0 + np.arange(3)[:, None] / 4
    table = per_sample(*made(distance, value))
    assert abs(effect(table, ACROSS)["value"]) < 1e-9
    assert abs(effect(table, SAME)["value"]) < 1e-9


def test_hard_images_count_across_images_and_not_within_a_question():
    hard = noise(1, DOCUMENTS)
    distance = hard + 0.1 * noise(3, DOCUMENTS)
    table = per_sample(*made(distance, -hard + np.zeros((3, 1))))
    assert effect(table, ACROSS)["value"] > 50
    assert abs(effect(table, SAME)["value"]) < 1e-9


def test_as_a_regression_with_a_dummy_for_every_level():
    distance, value = noise(3, DOCUMENTS), np.random.default_rng(6).random((3, DOCUMENTS))
    diagnostics, samples = made(distance, value)
    one = effect(per_sample(diagnostics, samples), SAME)
    joined = samples.merge(
        diagnostics[["setting", "cluster", "exact_w2"]], on=["setting", "cluster"]
    )
    joined["value"] *= 100
    fit = smf.ols("value ~ exact_w2 + C(setting) + C(doc_id)", joined).fit()
    assert one["value"] / one["deviation"] == pytest.approx(-fit.params["exact_w2"])


def test_questions_on_one_image_are_no_independent_answers():
    documents = 40
    clusters = [f"image {i // 4}" for i in range(documents)]
    near = np.repeat(noise(3, 10), 4, axis=1)
    right = (np.repeat(np.random.default_rng(8).random((3, 10)), 4, axis=1) < 0.5) * 1.0
    samples, measured = [samples_of("gqa", None, np.ones(documents), clusters)], []
    for method, x, y in zip(METHODS, near, right, strict=True):
        samples.append(samples_of("gqa", method, y, clusters))
        measured.append(diagnostics_of("gqa", method, x[::4], clusters[::4]))
    one = effect(per_sample(together(*measured), together(*samples)), ACROSS)
    alone = effect(per_sample(*made(near, right)), ACROSS)
    assert one["value"] == pytest.approx(alone["value"])
    assert one["clusters"] == 10
    assert one["high"] - one["low"] > 1.5 * (alone["high"] - alone["low"])


def test_random_draws_are_compared_with_each_other_alone():
    diagnostics, samples = made(noise(3, DOCUMENTS), np.ones((3, DOCUMENTS)))
    distance = noise(2, DOCUMENTS)
    for seed in (0, 1):
        value = 0.5 - 0.1 * distance[seed]
        samples = together(samples, samples_of("gqa", "random", value, seed=seed))
        diagnostics = together(
            diagnostics, diagnostics_of("gqa", "random", distance[seed], seed=seed)
        )
    one = effect(per_sample(diagnostics, samples), RANDOM_DRAWS)
    assert one["value"] / one["deviation"] == pytest.approx(10)
    assert one["answers"] == 2 * DOCUMENTS
    single = samples["setting"] != "random-0.1-seed1"
    table = per_sample(diagnostics[diagnostics["setting"] != "random-0.1-seed1"], samples[single])
    assert RANDOM_DRAWS not in set(table["comparison"])


def test_budgets_are_compared_within_themselves():
    distance, value = noise(3, DOCUMENTS), np.zeros((3, DOCUMENTS))
    few = made(distance, value)
    many = [], []
    for method, near in zip(METHODS, distance, strict=True):
        many[0].append(diagnostics_of("gqa", method, near - 9, ratio=0.5))
        many[1].append(samples_of("gqa", method, np.ones(DOCUMENTS), ratio=0.5))
    table = per_sample(together(few[0], *many[0]), together(few[1], *many[1]))
    assert set(table["budget"]) == {"0.1", "0.5", "all"}
    # All of the effect lies between the budgets.
    assert abs(effect(table, SAME, budget="all")["value"]) < 1e-9
    assert effect(table, SAME, budget="all")["answers"] == 6 * DOCUMENTS


def test_a_question_that_a_method_lacks_is_left_out_of_that_comparison():
    diagnostics, samples = made(noise(3, DOCUMENTS), noise(3, DOCUMENTS))
    lost = (samples["method"] == "uniform") & (samples["doc_id"] == 0)
    samples.loc[lost, "value"] = np.nan
    table = per_sample(diagnostics, samples)
    assert effect(table, ACROSS)["answers"] == 3 * DOCUMENTS - 1
    assert effect(table, SAME)["answers"] == 3 * (DOCUMENTS - 1)


def test_few_images_and_equal_distances_give_no_effect():
    assert per_sample(*made(noise(3, 9), noise(3, 9))).empty
    same = np.ones((3, DOCUMENTS)) * 0.1 * np.arange(1, 4)[:, None]
    assert per_sample(*made(same, noise(3, DOCUMENTS))).empty


def test_outcomes_are_points_of_100():
    samples = together(
        samples_of("gqa", None, [1, 0.3]),
        samples_of("mme", None, [1, np.nan]),
        samples_of("mmbench_en_dev_static", None, [100, 0]),
        samples_of("coco2017_cap_val", None, [3.0, 1.0]),
        samples_of("coco2017_cap_val", "otprune", [1.0, 1.0]),
        samples_of("my_own_task", None, [7, 8]),
    )
    found = outcomes(samples)
    by = {task: list(some["outcome"]) for task, some in found.groupby("task")}
    assert by["gqa"] == [100, 30]
    assert by["mme"] == pytest.approx([100, np.nan], nan_ok=True)
    assert by["mmbench_en_dev_static"] == [100, 0]
    assert by["coco2017_cap_val"] == [150, 50, 50, 50]
    assert "my_own_task" not in by
    assert set(found[found["kind"] == "captions"]["task"]) == {"coco2017_cap_val"}


def test_captions_without_an_unpruned_row_have_no_outcome():
    assert outcomes(samples_of("coco2017_cap_val", "otprune", [1.0])).empty
