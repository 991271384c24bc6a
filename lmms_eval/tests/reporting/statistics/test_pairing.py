"""Which rows are compared."""

import pandas as pd

from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.statistics.pairing import Comparison, comparisons, rows_of


def pairs(*configs):
    records = pd.DataFrame([config.columns() for config in configs])
    return [(c.budget, c.a, c.b) for c in comparisons(rows_of(records))]


make = PruningConfig.make
UNPRUNED = PruningConfig()


def test_rows_of_one_budget_meet_each_other_and_the_unpruned_model():
    found = pairs(
        UNPRUNED,
        make("otprune", 0.098),
        make("otprune", 0.2),
        make("divprune", 0.098),
        make("divprune", 0.098),
        make("otprune", k=64),
    )
    assert found == [
        ("0.098", "otprune-0.098", "divprune-0.098"),
        ("0.098", "otprune-0.098", "unpruned"),
        ("0.098", "divprune-0.098", "unpruned"),
        ("0.2", "otprune-0.2", "unpruned"),
        ("k64", "otprune-k64", "unpruned"),
    ]


def test_layers_are_budgets_of_their_own_and_meet_the_lowest():
    found = pairs(
        make("otprune", 0.1, layer=2),
        make("otprune", 0.1),
        make("otprune", 0.1, layer=12),
        make("otprune", 0.1, layer=2, gamma=0.05),
        make("otprune", 0.1, layer=20, gamma=0.05),
        make("divprune", 0.1, layer=2),
    )
    assert found == [
        ("0.1 at layer 2", "otprune-0.1-layer2", "otprune-0.1-layer2-gamma0.05"),
        ("0.1 at layer 2", "otprune-0.1-layer2", "divprune-0.1-layer2"),
        ("0.1 at layer 2", "otprune-0.1-layer2-gamma0.05", "divprune-0.1-layer2"),
        ("0.1, layers", "otprune-0.1-layer2", "otprune-0.1"),
        ("0.1, layers", "otprune-0.1-layer12", "otprune-0.1"),
        ("0.1, layers", "otprune-0.1-layer20-gamma0.05", "otprune-0.1-layer2-gamma0.05"),
    ]


def test_schedules_without_a_budget_meet_the_unpruned_model_only():
    found = pairs(
        UNPRUNED,
        make("vtw"),
        make("transprune", preset="low"),
        make("fastv", 0.5),
        make("otprune", 0.5, match="average"),
        make("otprune", 0.5, match="flops"),
        make("fastv", 0.5, match="flops"),
    )
    assert found == [
        ("0.5", "fastv-0.5", "otprune-0.5-average"),
        ("0.5 flops", "otprune-0.5-flops", "fastv-0.5-flops"),
        ("own schedule", "vtw", "unpruned"),
        ("own schedule", "transprune-low", "unpruned"),
        ("0.5", "fastv-0.5", "unpruned"),
        ("0.5", "otprune-0.5-average", "unpruned"),
        ("0.5 flops", "otprune-0.5-flops", "unpruned"),
        ("0.5 flops", "fastv-0.5-flops", "unpruned"),
    ]


def test_positions_that_are_not_the_usual_ones_are_another_setting():
    found = pairs(
        make("otprune", 0.1),
        make("otprune", 0.1, layer=2),
        make("otprune", 0.1, layer=4, positions="compact"),
    )
    assert found == [("0.1, layers", "otprune-0.1-layer2", "otprune-0.1")]


def test_nothing_to_compare():
    assert pairs(UNPRUNED) == []
    assert comparisons([]) == []
    assert Comparison("0.1", "x", "y").pair == ("x", "y")
