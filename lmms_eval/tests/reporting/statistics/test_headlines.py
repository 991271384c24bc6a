"""Weighted headlines against lmms-eval's aggregation of repeated documents."""

import json

import numpy as np
import pandas as pd
import pytest
from lmms_eval.tasks.mme.utils import eval_type_dict, mme_aggregate_results, mme_process_results
from lmms_eval.tasks.pope.utils import pope_aggregate_f1_score, pope_process_results

from otprune_lmms.reporting.statistics.headlines import resampled, terms_of

ANSWERS = ["yes", "no", "Yes", "yes.", "maybe", "", "NO "]


def pope(documents, stream):
    """Stock results and samples of POPE."""
    results = []
    for place in range(documents):
        document = {"question_id": str(place), "answer": stream.choice(["yes", "no"])}
        answer = str(stream.choice(ANSWERS))
        results.append(pope_process_results(document, [answer])["pope_f1_score"])
    frame = pd.DataFrame({"value": [one["score"] for one in results]})
    frame["detail"] = [
        json.dumps({"prediction": one["prediction"], "truth": one["ground_truth"]})
        for one in results
    ]
    return results, frame


def mme(images, stream, *, shuffled=True):
    """Stock results and samples of MME, perception and cognition."""
    kinds = [*eval_type_dict["Perception"][:4], eval_type_dict["Cognition"][0]]
    results, lines = [], []
    for image in range(images):
        kind = kinds[image % len(kinds)]
        for _ in range(2):
            document = {"question_id": f"{image}.jpg", "category": kind, "answer": "Yes"}
            found = mme_process_results(document, [str(stream.choice(["Yes", "No", "Perhaps"]))])
            one = found.get("mme_perception_score")
            results.append(one)
            detail = {} if one is None else {k: one[k] for k in ("category", "question_id")}
            value = np.nan if one is None else one["score"]
            lines.append({"value": value, "detail": json.dumps(detail)})
    order = stream.permutation(len(lines)) if shuffled else np.arange(len(lines))
    return [results[i] for i in order], pd.DataFrame(lines).iloc[order].reset_index(drop=True)


@pytest.mark.parametrize("seed", range(4))
def test_pope_is_lmms_eval_s_f1_of_repeated_documents(seed):
    stream = np.random.default_rng(seed)
    results, frame = pope(25, stream)
    counts = stream.integers(0, 4, size=(30, 25))
    stock = [
        100
        * pope_aggregate_f1_score([r for r, k in zip(results, row, strict=True) for _ in range(k)])
        for row in counts
    ]
    np.testing.assert_allclose(resampled("pope", frame, counts), stock, atol=1e-9)


def test_f1_without_a_true_positive_is_zero_and_of_nothing_is_none():
    frame = pd.DataFrame(
        {
            "value": [0.0, 1.0],
            "detail": [
                json.dumps({"prediction": "yes", "truth": "no"}),
                json.dumps({"prediction": "no", "truth": "no"}),
            ],
        }
    )
    counts = np.array([[1, 1], [0, 1], [0, 0]])
    found = resampled("pope", frame, counts)
    assert found[:2].tolist() == [0, 0]
    assert np.isnan(found[2])


@pytest.mark.parametrize("seed", range(4))
def test_mme_is_lmms_eval_s_sum_of_repeated_pairs(seed):
    stream = np.random.default_rng(seed)
    results, frame = mme(20, stream)
    image = [f"{r['question_id']}" if r else f"none {i}" for i, r in enumerate(results)]
    _, place = np.unique(image, return_inverse=True)
    counts = stream.integers(0, 3, size=(30, place.max() + 1))[:, place]
    stock = [
        mme_aggregate_results(
            [
                # lmms-eval knows an image by its name, so each repetition needs its own.
                r | {"question_id": f"{r['question_id']} {again}"}
                for r, k in zip(results, row, strict=True)
                if r is not None
                for again in range(k)
            ]
        )
        for row in counts
    ]
    np.testing.assert_allclose(resampled("mme", frame, counts), stock, atol=1e-9)


def test_mme_of_cognition_alone_has_no_value():
    _, frame = mme(20, np.random.default_rng(0))
    frame["value"], frame["detail"] = np.nan, "{}"
    assert np.isnan(resampled("mme", frame, np.ones((1, len(frame))))).all()


def test_mme_needs_both_questions_and_equal_counts():
    _, frame = mme(10, np.random.default_rng(0), shuffled=False)
    counts = np.ones((1, len(frame)))
    counts[0, 0] = 2
    with pytest.raises(ValueError, match="counts must be equal"):
        resampled("mme", frame, counts)
    with pytest.raises(ValueError, match=r"existence 0.jpg has 1"):
        terms_of("mme", frame.iloc[1:])
    half = frame.copy()
    half.loc[0, "value"] = np.nan
    with pytest.raises(ValueError, match=r"existence 0.jpg has 1"):
        terms_of("mme", half)
    with pytest.raises(ValueError, match=r"existence 0.jpg has 3"):
        terms_of("mme", pd.concat([frame, frame.iloc[:1]]))


@pytest.mark.parametrize(("task", "scale"), [("gqa", 100), ("mmbench_en_dev_static", 1), ("my", 1)])
def test_other_headlines_are_means_of_what_counts(task, scale):
    stream = np.random.default_rng(1)
    values = stream.random(12)
    values[[3, 7]] = np.nan
    frame = pd.DataFrame({"value": values, "detail": "{}"})
    counts = stream.integers(0, 3, size=(20, 12))
    plain = [scale * np.nanmean(np.repeat(values, row)) for row in counts]
    np.testing.assert_allclose(resampled(task, frame, counts), plain, rtol=1e-12)
    only_missing = np.zeros((1, 12))
    only_missing[0, 3] = 5
    assert np.isnan(resampled(task, frame, only_missing)).all()


@pytest.mark.parametrize("shape", [(3, 4), (5,), (2, 5, 1)])
def test_counts_of_another_shape_are_refused(shape):
    frame = pd.DataFrame({"value": np.ones(5), "detail": "{}"})
    with pytest.raises(ValueError, match=r"counts must be \[B 5\]"):
        resampled("gqa", frame, np.ones(shape))
