"""Agreement with the unpruned model."""

import numpy as np
import pytest

from analysis_frames import samples_of, together
from otprune_lmms.reporting.analysis.loyalty import loyalty


def one(table, row, task):
    (found,) = table[(table["row"] == row) & (table["task"] == task)].to_dict("records")
    return found


def answers(task, method, said, **named):
    return samples_of(task, method, np.zeros(len(said)), answers=list(said), **named)


def test_the_unpruned_model_agrees_with_itself():
    table = loyalty(answers("gqa", None, "abab"), 20)
    for task in ("gqa", "all"):
        found = one(table, "unpruned", task)
        assert (found["value"], found["low"], found["high"]) == (100, 100, 100)


def test_shares_seeds_and_means():
    samples = together(
        answers("gqa", None, "aaaa"),
        answers("gqa", "otprune", "aaab"),
        answers("gqa", "random", "aabb", seed=0),
        answers("gqa", "random", "bbbb", seed=1),
        answers("mmmu_val", None, "ab"),
        answers("mmmu_val", "otprune", "ba"),
        answers("coco2017_cap_val", None, ["a dog"]),
        answers("coco2017_cap_val", "otprune", ["a cat"]),
    )
    table = loyalty(samples, 50)
    assert one(table, "otprune-0.1", "gqa")["value"] == 75
    assert one(table, "random-0.1", "gqa")["value"] == 25
    assert one(table, "otprune-0.1", "coco2017_cap_val")["value"] == 0
    mean = one(table, "otprune-0.1", "all")
    assert mean["value"] == (75 + 0) / 2
    assert mean["documents"] == 6
    # A setting that did not do all benchmarks has no mean over them.
    assert not ((table["row"] == "random-0.1") & (table["task"] == "all")).any()


def test_agreement_is_not_correctness():
    samples = together(answers("gqa", None, "xx"), answers("gqa", "otprune", "xx"))
    samples["value"] = 0.0
    assert one(loyalty(samples, 5), "otprune-0.1", "gqa")["value"] == 100


def test_the_interval_takes_images_and_not_answers():
    said = "a" * 20 + "b" * 20
    alone = together(answers("gqa", None, "a" * 40), answers("gqa", "otprune", said))
    few = alone.copy()
    few["cluster"] = [f"image {i // 10}" for i in range(40)] * 2
    narrow, wide = (one(loyalty(some, 500), "otprune-0.1", "gqa") for some in (alone, few))
    assert narrow["value"] == wide["value"] == 50
    assert wide["clusters"] == 4
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def test_the_normal_interval_of_a_share():
    said = "a" * 120 + "b" * 80
    samples = together(answers("gqa", None, "a" * 200), answers("gqa", "otprune", said))
    found = one(loyalty(samples, 4000), "otprune-0.1", "gqa")
    half = 1.96 * 100 * np.sqrt(0.6 * 0.4 / 200)
    assert found["low"] == pytest.approx(60 - half, abs=1)
    assert found["high"] == pytest.approx(60 + half, abs=1)


def test_without_the_unpruned_model_there_is_nothing_to_agree_with():
    assert loyalty(answers("gqa", "otprune", "ab"), 5).empty
