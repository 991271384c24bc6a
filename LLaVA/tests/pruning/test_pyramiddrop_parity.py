"""PyramidDrop against its authors' code."""

import pytest

from helpers import case_id
from otprune.pruning import make_pruning
from pruning.parity32 import answer, assert_same, cases32, kept_in_common, schedule

CASES = cases32("pdrop")


def made(entry, **settings):
    said = entry["settings"]
    return make_pruning(
        "pyramiddrop", schedule=schedule(said["layers"], said["ratios"]), **settings
    )


@pytest.mark.parametrize("entry", CASES, ids=case_id)
def test_it_keeps_scores_and_answers_as_the_released_code(entry):
    assert_same(entry, answer(entry, made(entry)))


def test_the_default_is_the_released_schedule():
    assert make_pruning("pyramiddrop") == made(CASES[0])


def test_eager_attention_answers_the_same():
    # The released code raises there.
    assert_same(CASES[0], answer(CASES[0], made(CASES[0]), "eager"))


def test_original_positions_would_be_told_apart():
    original = answer(CASES[0], made(CASES[0], positions="original"))
    assert kept_in_common(CASES[0], original, "8") == 288
    assert kept_in_common(CASES[0], original, "24") == 25
