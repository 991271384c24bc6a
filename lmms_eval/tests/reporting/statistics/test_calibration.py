"""Calibration: closed forms, brute force, and what it must not depend on."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otprune_lmms.reporting.statistics.answers import ALL, answer_quantities, answers_section
from otprune_lmms.reporting.statistics.bootstrap import redraws_of, task_seed
from otprune_lmms.reporting.statistics.calibration import (
    BINS,
    brier_score,
    calibration_error,
    calibration_errors,
    confidence_of,
)
from otprune_lmms.results.columns import SETTING
from otprune_lmms.results.names import Names

QUANTITIES = ["ece", "ece_by_chance", "overconfidence", "brier"]

confidences = st.lists(st.floats(0, 1), min_size=1, max_size=30).map(np.array)


def samples(rows, task="pope", clusters=None):
    """Samples by setting: a list of (probabilities, right option), None without options."""
    frames = []
    for (row, setting), given_ones in rows.items():
        n = len(given_ones)
        frames.append(
            pd.DataFrame(
                {
                    "model": "tiny", "setting": setting, "row": row, "method": "otprune",
                    "task": task, "doc_id": range(n), "value": 1.0,
                    "cluster": clusters or [f"image {i}" for i in range(n)],
                    "answer": "Yes", "target": "yes", "keep_ratio": 0.1, "k": None,
                    "match": "kept", "unfinished": None,
                    "probabilities": [None if one is None else one[0] for one in given_ones],
                    "right_option": [None if one is None else one[1] for one in given_ones],
                }
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def quantities(frame, row="row", task="pope", draws=50):
    found = answer_quantities(frame, draws=draws)
    some = found[(found["row"] == row) & (found["task"] == task)]
    return some.set_index("quantity")


def test_right_as_often_as_confident_is_calibrated():
    frame = samples({("row", "s"): [((0.75, 0.25), 0)] * 3 + [((0.75, 0.25), 1)]})
    found = quantities(frame)["value"]
    assert found["ece"] == found["overconfidence"] == pytest.approx(0)
    assert found["brier"] == pytest.approx(100 * (0.75 * 2 * 0.25**2 + 0.25 * 2 * 0.75**2))


def test_sure_and_always_wrong_is_as_bad_as_can_be():
    found = quantities(samples({("row", "s"): [((1.0, 0.0), 1)] * 5}))["value"]
    assert found["ece"] == found["overconfidence"] == pytest.approx(100)
    assert found["brier"] == pytest.approx(200)
    assert found["ece_by_chance"] == 0
    found = quantities(samples({("row", "s"): [((1.0, 0.0), 0)] * 5}))["value"]
    assert (found[["ece", "overconfidence", "brier"]] == 0).all()


@pytest.mark.parametrize("options", [2, 3, 4, 5])
def test_no_preference_among_options_is_calibrated_whichever_are_right(options):
    uniform = tuple([1 / options] * options)
    found = quantities(samples({("row", "s"): [(uniform, i % options) for i in range(7)]}))["value"]
    assert found["ece"] == pytest.approx(0)
    assert found["brier"] == pytest.approx(100 * (1 - 1 / options))


def test_seeds_are_averaged_and_rows_without_all_documents_left_out():
    sure, wrong, half = ((1.0, 0.0), 0), ((1.0, 0.0), 1), ((0.5, 0.5), 0)
    frame = samples(
        {
            ("row", "one"): [sure, wrong, None],
            ("row", "two"): [sure, sure, None],
            ("fewer", "three"): [half, None, None],
        }
    )
    assert quantities(frame).loc["ece", "value"] == pytest.approx(25)
    assert "ece" not in quantities(frame, "fewer").index
    # A document without options counts nowhere.
    assert quantities(frame).loc["brier", "value"] == pytest.approx(50)


def test_without_probabilities_there_is_none_and_the_page_does_not_tell_of_it():
    frame = samples({("row", "s"): [None, None]})
    assert not set(QUANTITIES) & set(answer_quantities(frame, draws=10)["quantity"])
    names = Names([dict.fromkeys(SETTING) | {"setting": "s", "row": "row", "name": "row"}])
    assert "Brier" not in answers_section(answer_quantities(frame, draws=10), names)
    frame = samples({("row", "s"): [((0.9, 0.1), 0), ((0.6, 0.4), 1)]})
    page = answers_section(answer_quantities(frame, draws=10), names)
    assert "| ece | ece by chance | overconfidence | brier |" in page
    assert "Brier score: squared distance" in page


def test_intervals_contain_the_number_and_redraw_images():
    stream = np.random.default_rng(0)
    given_ones = [
        ((p, 1 - p), int(r < 0.4)) for p, r in zip(*stream.uniform(0.5, 1, (2, 60)), strict=True)
    ]
    frame = samples({("row", "s"): given_ones}, clusters=[f"image {i // 3}" for i in range(60)])
    found = quantities(frame, draws=400)
    for name in ("ece", "overconfidence", "brier"):
        line = found.loc[name]
        assert line["low"] < line["value"] < line["high"], name
        assert (line["documents"], line["clusters"]) == (60, 20)
    over_one = quantities(frame, task=ALL, draws=400)
    pd.testing.assert_frame_equal(found.drop(columns="task"), over_one.drop(columns="task"))


def test_chance_is_what_calibrated_models_show():
    stream = np.random.default_rng(1)
    confidence = stream.uniform(0.5, 1, 120)
    hits = stream.random((1000, 120)) < confidence
    shown = [100 * brute_force(confidence, right) for right in hits.astype(float)]
    frame = samples({("row", "s"): [((p, 1 - p), int(p > 0.8)) for p in confidence]})
    chance = quantities(frame, draws=1000).loc["ece_by_chance"]
    # Within four standard errors of both simulations.
    assert chance["value"] == pytest.approx(
        np.mean(shown), abs=4 * np.std(shown) * (2 / 1000) ** 0.5
    )
    within = np.mean([chance["low"] <= one <= chance["high"] for one in shown])
    assert within == pytest.approx(0.95, abs=0.04)


def brute_force(confidence, right):
    total = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        inside = [
            i for i, c in enumerate(confidence) if low < c <= high or (c == 0 and number == 0)
        ]
        if inside:
            gap = np.mean([right[i] for i in inside]) - np.mean([confidence[i] for i in inside])
            total += len(inside) / len(confidence) * abs(gap)
    return total


@given(st.data())
def test_the_error_is_that_of_every_bin_by_itself(data):
    # Away from the borders of bins, where rounding decides.
    places = st.integers(0, 30 * BINS - 1).map(lambda i: (i + 0.5) / (30 * BINS))
    confidence = np.array(data.draw(st.lists(places, min_size=1, max_size=20)))
    right = np.array(data.draw(st.lists(st.booleans(), min_size=len(confidence),
                                        max_size=len(confidence))), dtype=float)  # fmt: skip
    assert calibration_error(confidence, right) == pytest.approx(brute_force(confidence, right))
    counts = np.array([[1, 2, 0] * 7])[:, : len(confidence)].astype(float)
    repeated = np.repeat(np.arange(len(confidence)), counts[0].astype(int))
    (found,) = calibration_error(confidence, right, counts)
    assert found == pytest.approx(brute_force(confidence[repeated], right[repeated]))


@given(confidences, st.randoms(use_true_random=False))
def test_the_order_of_documents_does_not_matter_and_the_bound_holds(confidence, random):
    right = np.array([float(random.random() < 0.5) for _ in confidence])
    order = list(range(len(confidence)))
    random.shuffle(order)
    found = float(calibration_error(confidence, right))
    assert found == pytest.approx(float(calibration_error(confidence[order], right[order])))
    # Bins can only hide: no error is below the difference of means, none above that of each.
    assert abs((right - confidence).mean()) - 1e-12 <= found
    assert found <= np.abs(right - confidence).mean() + 1e-12


@given(st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any), st.data())
def test_names_of_options_do_not_matter(weights, data):
    found = np.array(weights) / sum(weights)
    right = data.draw(st.integers(0, len(found) - 1))
    order = data.draw(st.permutations(range(len(found))))
    renamed = found[list(order)], order.index(right)
    assert confidence_of(found, right) == pytest.approx(confidence_of(*renamed))
    assert brier_score(found, right) == pytest.approx(brier_score(*renamed))
    assert 0 <= brier_score(found, right) <= 2


def test_ids_of_documents_do_not_matter():
    given_ones = [((0.9, 0.1), 0), ((0.6, 0.4), 1), ((0.7, 0.3), 0)]
    frame = samples({("row", "s"): given_ones})
    renamed = frame.assign(doc_id=frame["doc_id"].map(lambda one: 7 * one**2 + 3))
    pd.testing.assert_frame_equal(quantities(frame), quantities(renamed))


def test_a_draw_without_a_document_with_options_has_no_error():
    frame = samples({("row", "s"): [((0.9, 0.1), 0), None, None]})
    redraws = redraws_of(range(3), ["a", "b", "c"], 50, task_seed("pope", 0))
    found = calibration_errors(frame, redraws, task_seed("chance", 0))["ece"]["row"]
    assert found[0] == pytest.approx(10)
    assert 0 < np.isnan(found).sum() < 50
