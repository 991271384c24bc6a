"""FastV against its authors' key-value-cache version."""

import pytest

from helpers import case_id, largest
from otprune.pruning import make_pruning
from pruning.parity32 import answer, assert_same, cases32, kept_in_common, schedule

CASES = cases32("fastv")


def made(entry, **settings):
    where, share = entry["settings"]["K"], entry["settings"]["kept_share"]
    return make_pruning("fastv", schedule=schedule([where], [share]), **settings)


@pytest.mark.parametrize("entry", CASES, ids=case_id)
def test_it_keeps_scores_and_answers_as_the_released_code(entry):
    assert_same(entry, answer(entry, made(entry)))


def test_eager_attention_answers_the_same():
    # The released code raises there.
    assert_same(CASES[0], answer(CASES[0], made(CASES[0]), "eager"))


def test_renumbered_positions_would_be_told_apart():
    compact = answer(CASES[0], made(CASES[0], positions="compact"))
    assert kept_in_common(CASES[0], compact, "2") == 288
    original = answer(CASES[0], made(CASES[0]))
    assert largest(compact.logits[0] - original.logits[0]) > 1


def test_presets_are_the_recorded_settings():
    (entry,) = [e for e in CASES if case_id(e) == "fastv__land_q1_K3_r0.5"]
    assert make_pruning("fastv", preset="k3") == made(entry)
