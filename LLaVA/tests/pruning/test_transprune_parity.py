"""TransPrune against its authors' code."""

import pytest
import torch

from helpers import arrays, case_id
from otprune.layer_pruners.transprune import TransPrune
from otprune.pruning import make_pruning
from pruning.parity32 import SCORES, answer, assert_same, cases32, kept_in_common, schedule

CASES = cases32("transprune")
HIGH = CASES[0]


def made(entry, **settings):
    said = entry["settings"]
    observed = [layer - 1 for layer in said["accumulate"]]
    return make_pruning(
        "transprune",
        schedule=schedule(said["layers"], said["ratios"]),
        observe_from=observed[0],
        observe_to=observed[-1],
        **settings,
    )


@pytest.mark.parametrize("entry", CASES, ids=case_id)
def test_it_keeps_scores_and_answers_as_the_released_code(entry, monkeypatch):
    accumulated, rank = {}, TransPrune._prune

    def noting(self, view, k):
        accumulated[view.layer] = view.accumulated[view.visual].clone()
        return rank(self, view, k)

    monkeypatch.setattr(TransPrune, "_prune", noting)
    assert_same(entry, answer(entry, made(entry)))
    want = arrays(entry)
    for layer in entry["settings"]["layers"]:
        torch.testing.assert_close(accumulated[layer], want[f"ttv_{layer}"], rtol=SCORES, atol=0)


@pytest.mark.parametrize("preset", ["high", "low"])
def test_presets_are_the_recorded_settings(preset):
    entries = [entry for entry in CASES if case_id(entry).endswith(preset)]
    assert len(entries) == 4
    assert all(make_pruning("transprune", preset=preset) == made(entry) for entry in entries)


def test_eager_attention_answers_the_same():
    # The released code raises there.
    assert_same(HIGH, answer(HIGH, made(HIGH), "eager"))


@pytest.mark.parametrize(
    ("settings", "common"),
    [
        ({"formula": "paper"}, 50),
        ({"iga": False}, 12),
        ({"weight": 1.0}, 12),
        ({"weight": 0.0}, 44),
        ({"positions": "original"}, 24),
    ],
)
def test_other_settings_keep_other_tokens(settings, common):
    # As many of 72 as variants of the released code itself have in common with it.
    assert kept_in_common(HIGH, answer(HIGH, made(HIGH, **settings)), "12") == common
