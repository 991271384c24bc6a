import copy
import dataclasses
import pickle

import pytest

from otprune import PRUNERS, LayerPruner, Merger, Selector, Signals, make_pruner
from otprune.registry import LAYER_PRUNERS, MERGERS, SELECTORS


@pytest.mark.parametrize("name", PRUNERS)
def test_every_entry_is_frozen_with_a_docstring_that_tells_its_cost_and_working_defaults(name):
    method = PRUNERS[name]
    pruner = make_pruner(name)
    assert isinstance(pruner, Selector | Merger | LayerPruner)
    assert method.__doc__
    assert "O(" in method.__doc__ or "Cost: " in method.__doc__
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        pruner.anything = 1
    for field in dataclasses.fields(method):
        assert field.name in method.__doc__
        assert type(getattr(pruner, field.name)) in (str, int, float, bool)
    assert make_pruner(name) == pruner


def test_the_three_kinds_are_the_whole_registry():
    assert {**SELECTORS, **MERGERS, **LAYER_PRUNERS} == PRUNERS
    assert len(SELECTORS) + len(MERGERS) + len(LAYER_PRUNERS) == len(PRUNERS)


@pytest.mark.parametrize("name", PRUNERS)
def test_needs_are_names_of_signals_and_presets_settings_that_work(name):
    method = PRUNERS[name]
    signals = {field.name for field in dataclasses.fields(Signals)}
    assert make_pruner(name).needs <= signals
    for preset in method.presets:
        assert make_pruner(name, preset=preset).needs <= signals


@pytest.mark.parametrize(
    ("name", "preset"), [(n, p) for n, method in PRUNERS.items() for p in method.presets]
)
def test_presets_set_what_they_say_and_settings_win_over_them(name, preset):
    pruner = make_pruner(name, preset=preset)
    for setting, value in PRUNERS[name].presets[preset].items():
        assert getattr(pruner, setting) == value


def test_a_setting_wins_over_its_preset():
    assert make_pruner("otprune", preset="released", order="spatial").order == "spatial"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown pruner 'otprun'; known: .*divprune, .*dpp, .*otprune"
    ):
        make_pruner("otprun")
    for name in (None, 5, ["otprune"]):
        with pytest.raises(ValueError, match=r"unknown pruner (None|5|\['otprune'\]); known:"):
            make_pruner(name)  # type: ignore[arg-type] - what users may give


def test_an_unknown_setting_is_answered_with_the_known_ones():
    known = "known: adaptive, threshold, gamma, variant"
    with pytest.raises(ValueError, match=f"unknown setting 'gama' of pruner otprune; {known}"):
        make_pruner("otprune", gama=0.1)
    with pytest.raises(ValueError, match="unknown setting 'gamma' of pruner uniform; known: none"):
        make_pruner("uniform", gamma=0.1)


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="preset 'fork' of pruner otprune; known: auto, paper"):
        make_pruner("otprune", preset="fork")
    with pytest.raises(ValueError, match="known: none"):
        make_pruner("uniform", preset="x")


VERBS = {
    Selector: ("select", "select_batch", "rank", "rank_batch"),
    Merger: ("merge",),
    LayerPruner: ("prune", "plan", "start", "observe", "appended"),
}
USES = {
    Selector: r"is a selector and has no {}\(\): call select\(tokens, k\)",
    Merger: r"is a merger and has no {}\(\): call merge\(tokens, k\)",
    LayerPruner: r"is a layer pruner and has no {}\(\): .*make_pruning\(method\).*prune\(",
}


@pytest.mark.parametrize("name", PRUNERS)
def test_a_method_called_like_one_of_another_kind_says_what_it_is_and_what_to_call(name):
    method = make_pruner(name)
    (own,) = (kind for kind in VERBS if isinstance(method, kind))
    for kind, verbs in VERBS.items():
        for verb in verbs:
            assert hasattr(method, verb) == (kind is own), "protocols go by what there is"
            if kind is not own:
                with pytest.raises(
                    AttributeError, match=f"{type(method).__name__} {USES[own]}".format(verb)
                ):
                    getattr(method, verb)
    assert copy.deepcopy(pickle.loads(pickle.dumps(method))) == method
    with pytest.raises(AttributeError, match="object has no attribute 'selct'"):
        _ = method.selct


class _Broken(Selector):
    @property
    def nested(self):
        return self.missing

    def _rank_image(self, tokens, k, signals):
        return tokens.argsort()[:k]


def test_what_goes_wrong_in_a_property_is_told_as_it_is():
    with pytest.raises(AttributeError, match="'_Broken' object has no attribute 'missing'"):
        _ = _Broken().nested
