"""What to prune, checked before anything runs."""

import numpy as np
import pytest

from helpers import loaded
from otprune import Selector, make_pruner
from otprune.pruning import Pruning, Stage, make_pruning

FIRST = make_pruner("first_k")


def test_one_line_says_what_to_prune():
    pruning = make_pruning("otprune", keep_ratio=0.098)
    assert pruning.before == make_pruner("otprune")
    assert not pruning.inside
    assert pruning.positions_at(0) == "compact"
    inside = make_pruning("divprune", k=64, layer=2)
    assert inside.before is None
    assert inside.inside
    assert inside.positions_at(2) == "original"
    assert make_pruning("otprune", k=3, positions="original").positions_at(0) == "original"
    assert make_pruning(FIRST, k=3).stages[0].method is FIRST


def test_budgets_count_the_tokens_before_any_pruning():
    assert Stage(FIRST, keep_ratio=0.098).budget(576, 576) == 56
    assert Stage(FIRST, keep_ratio=0.5).budget(100, 30) == 30
    assert Stage(FIRST, k=64).budget(576, 576) == 64
    assert Stage(FIRST, k=64).budget(576, 40) == 40
    assert Stage(FIRST, keep_ratio=0.001).budget(100, 100) == 1


def test_numbers_may_be_numpy_s():
    pruning = make_pruning("otprune", k=np.int64(5), layer=np.int32(1))
    assert (pruning.stages[0].k, pruning.stages[0].layer) == (5, 1)
    assert type(pruning.stages[0].k) is int
    assert make_pruning("otprune", keep_ratio=np.float32(0.5)).stages[0].keep_ratio == 0.5


def test_the_fork_s_answers_need_its_own_preset():
    stage = make_pruning("otprune", keep_ratio=0.1, compat="reference").stages[0]
    assert stage.method == make_pruner("otprune", preset="released")
    stage = make_pruning("otprune", keep_ratio=0.1, compat="reference", preset="paper").stages[0]
    assert stage.method == make_pruner("otprune", preset="paper")


def test_needs_are_those_of_all_stages():
    class A(type(FIRST)):
        needs = frozenset({"cls_attention"})

    class B(type(FIRST)):
        needs = frozenset({"encoder_keys"})

    stages = (Stage(A(), k=5), Stage(B(), k=2, layer=3))
    assert Pruning(stages).needs == {"cls_attention", "encoder_keys"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_pruning("otprun", k=1), "unknown pruner 'otprun'"),
        (
            lambda: make_pruning("otprune", keep_ratio=9.8),
            r"keep_ratio must be in \(0, 1\], got 9.8",
        ),
        (
            lambda: make_pruning("otprune", keep_ratio=0.0),
            r"keep_ratio must be in \(0, 1\], got 0.0",
        ),
        (
            lambda: make_pruning("otprune"),
            "exactly one of keep_ratio and k must be given, got neither",
        ),
        (lambda: make_pruning("otprune", keep_ratio=0.1, k=3), "exactly one of keep_ratio and k"),
        (lambda: make_pruning("otprune", k=0), "k must be an integer >= 1, got 0"),
        (lambda: make_pruning("otprune", k=True), "k must be an integer >= 1, got True"),
        (lambda: make_pruning("otprune", k=1.5), "k must be an integer >= 1, got 1.5"),
        (lambda: make_pruning("otprune", k=1, layer=-1), "layer must be an integer >= 0, got -1"),
        (lambda: make_pruning("otprune", k=1, layer="2"), "layer must be an integer >= 0, got '2'"),
        (
            lambda: make_pruning("otprune", k=1, positions="same"),
            "positions must be compact or original",
        ),
        (
            lambda: make_pruning("otprune", k=1, keep_newlines=1),
            "keep_newlines must be true or false",
        ),
        (
            lambda: make_pruning("otprune", k=1, compat="fork"),
            "compat must be reference or nothing",
        ),
        (lambda: make_pruning("otprune", k=1, gama=3), "unknown setting 'gama' of pruner otprune"),
        (
            lambda: make_pruning(FIRST, k=1, gamma=3),
            "preset and settings belong to a method's name",
        ),
        (
            lambda: make_pruning(FIRST, k=1, compat="reference", positions="original"),
            "compat='reference'",
        ),
        (
            lambda: make_pruning(FIRST, k=1, compat="reference", keep_newlines=True),
            "no keep_newlines",
        ),
        (
            lambda: Stage("otprune", k=1),
            "method must be an otprune Selector or Merger, got 'otprune'",
        ),
        (lambda: Pruning(()), "stages must be a tuple of one or more"),
        (lambda: Pruning([Stage(FIRST, k=1)]), "stages must be a tuple of one or more"),
        (lambda: Pruning((Stage(FIRST, k=1),) * 2), r"ascending, distinct layers, got \[0, 0\]"),
        (
            lambda: Pruning((Stage(FIRST, k=1, layer=3), Stage(FIRST, k=1, layer=1))),
            r"ascending, distinct layers, got \[3, 1\]",
        ),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_layer_that_the_model_lacks_is_refused_before_anything_runs():
    model = loaded("checkpoints/tiny-llava-v1.5")[1]
    model.check_pruning(make_pruning("otprune", k=1, layer=3))
    with pytest.raises(ValueError, match=r"layer must be in 0\.\.3 for a model of 4 layers, got 4"):
        model.check_pruning(make_pruning("otprune", k=1, layer=4))


def test_the_default_selector_is_one_of_otprune():
    assert issubclass(type(FIRST), Selector)
