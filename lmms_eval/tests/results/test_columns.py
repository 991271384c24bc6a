"""Budgets, and the columns that say which setting a line is about."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.columns import SETTING, Budget, budget_of

AMOUNTS = st.one_of(
    st.fixed_dictionaries({"keep_ratio": st.floats(1e-6, 1)}),
    st.fixed_dictionaries({"k": st.integers(1, 3000)}),
)
MORE = st.sampled_from(
    [("otprune", {}), ("otprune", {"gamma": 0.05}), ("otprune", {"gamma": 1e-05}),
     ("otprune", {"positions": "original"}), ("random", {"seed": 3}), ("divprune", {})]
)  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "label", "heading"),
    [
        ((0.098, None, "kept"), "0.098", "keep ratio 0.098"),
        ((1 / 3, np.nan, "kept"), "0.3333333333333333", "keep ratio 0.3333333333333333"),
        ((0.5, pd.NA, "average"), "0.5", "keep ratio 0.5"),
        ((0.5, None, "flops"), "0.5 flops", "multiply-adds of keep ratio 0.5"),
        ((np.nan, 64.0, "kept"), "k64", "64 tokens"),
        ((None, np.int64(64), "flops"), "k64 flops", "multiply-adds of 64 tokens"),
        ((None, None, None), "own schedule", "own schedules"),
    ],
)
def test_a_budget_has_a_label_and_a_heading(columns, label, heading):
    budget = budget_of(*columns)
    assert (budget.label, budget.heading) == (label, heading)
    assert budget.own_schedule == (label == "own schedule")


def test_shares_of_tokens_are_one_budget_and_shares_of_multiply_adds_another():
    assert budget_of(0.5, None, "kept") == budget_of(0.5, np.nan, "average") == Budget(0.5)
    assert budget_of(0.5, None, "flops") == Budget(0.5, multiply_adds=True) != Budget(0.5)


def test_a_config_fills_every_column():
    for config in (PruningConfig(), PruningConfig.make("random", k=64, seed=3)):
        assert tuple(config.columns()) == SETTING


def test_settings_are_all_of_a_method_s_and_changed_ones_those_that_differ():
    columns = PruningConfig.make("otprune", 0.098, gamma=0.05, layer=2).columns()
    own = json.loads(columns["settings"])
    assert own["gamma"] == 0.05
    assert own["variant"] == "code", "defaults are among them"
    assert json.loads(columns["changed_settings"]) == {"gamma": 0.05}
    plain = PruningConfig.make("otprune", 0.098).columns()
    assert json.loads(plain["settings"])["gamma"] == 0.01
    assert plain["changed_settings"] == "{}"
    one = PruningConfig.make("otprune", 0.5, gamma=1).columns()
    assert one == PruningConfig.make("otprune", 0.5, gamma=1.0).columns()


def test_changed_settings_hold_what_is_no_setting_of_the_method():
    config = PruningConfig.make(
        "otprune", 0.1, layer=2, positions="compact", keep_newlines=True, gamma=0.05
    )
    assert json.loads(config.columns()["changed_settings"]) == {
        "gamma": 0.05, "positions": "compact", "keep_newlines": True,
    }  # fmt: skip
    assert PruningConfig().columns()["changed_settings"] == "{}"
    preset = PruningConfig.make("transprune", preset="low").columns()
    assert json.loads(preset["changed_settings"]) == {"preset": "low"}


@settings(deadline=None, max_examples=50)
@given(chosen=MORE, one=AMOUNTS, other=AMOUNTS, layers=st.tuples(*[st.integers(0, 40)] * 2))
def test_changed_settings_depend_on_neither_budget_nor_layer_nor_seed(chosen, one, other, layers):
    method, more = chosen
    found = []
    for budget, layer in zip((one, other), layers, strict=True):
        # Original positions are the usual ones inside the language model.
        at = 0 if "positions" in more else layer
        config = PruningConfig.make(method, layer=at, **budget, **more)
        found.append(config.columns()["changed_settings"])
    assert found[0] == found[1]
    changed = {name: value for name, value in more.items() if name != "seed"}
    assert json.loads(found[0]) == changed


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (PruningConfig(), "unpruned"),
        (PruningConfig.make("otprune", 0.098), "otprune"),
        (
            PruningConfig.make(
                "otprune", 0.098, layer=12, gamma=0.05, variant="paper", positions="compact"
            ),
            "otprune, layer 12, gamma 0.05, variant paper, compact",
        ),
        (PruningConfig.make("otprune", 0.0980001), "otprune"),
        (PruningConfig.make("otprune", 1e-05, keep_newlines=True), "otprune, newlines"),
        (PruningConfig.make("random", k=64, seed=3), "random"),
        (PruningConfig.make("otprune", 0.5, match="flops"), "otprune"),
        (PruningConfig.make("transprune", preset="low"), "transprune, low"),
        (PruningConfig.make("fastv", k=64, schedule="3:0.5"), "fastv, schedule 3:0.5"),
    ],
)
def test_a_row_is_named_without_its_budget(config, name):
    assert config.columns()["name"] == name
