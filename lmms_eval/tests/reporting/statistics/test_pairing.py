"""Which rows are compared."""

import pandas as pd

from otprune_lmms.reporting.statistics.pairing import Comparison, comparisons, rows_of


def records(*lines):
    columns = ["row", "method", "keep_ratio", "k", "layer"]
    return pd.DataFrame(lines, columns=columns)


def pairs(*lines):
    return [(c.budget, c.a, c.b) for c in comparisons(rows_of(records(*lines)))]


UNPRUNED = ("unpruned", None, None, None, 0)


def test_rows_of_one_budget_meet_each_other_and_the_unpruned_model():
    found = pairs(
        UNPRUNED,
        ("otprune-0.098", "otprune", 0.098, None, 0),
        ("otprune-0.2", "otprune", 0.2, None, 0),
        ("divprune-0.098", "divprune", 0.098, None, 0),
        ("divprune-0.098", "divprune", 0.098, None, 0),
        ("otprune-k64", "otprune", None, 64.0, 0),
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
        ("otprune-0.1-layer2", "otprune", 0.1, None, 2),
        ("otprune-0.1", "otprune", 0.1, None, 0),
        ("otprune-0.1-layer12", "otprune", 0.1, None, 12),
        ("otprune-0.1-layer2-gamma0.05", "otprune", 0.1, None, 2),
        ("otprune-0.1-layer20-gamma0.05", "otprune", 0.1, None, 20),
        ("divprune-0.1-layer2", "divprune", 0.1, None, 2),
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
        ("vtw", "vtw", None, None, 0),
        ("transprune-low", "transprune", None, None, 0),
        ("fastv-0.5", "fastv", 0.5, None, 0),
        ("otprune-0.5-average", "otprune", 0.5, None, 0),
        ("otprune-0.5-flops", "otprune", 0.5, None, 0),
        ("fastv-0.5-flops", "fastv", 0.5, None, 0),
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


def test_nothing_to_compare():
    assert pairs(UNPRUNED) == []
    assert pairs() == []
    assert Comparison("0.1", "x", "y").pair == ("x", "y")
