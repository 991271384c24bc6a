import dataclasses

import pytest

from otprune import PRUNERS, Selector, make_pruner


@pytest.mark.parametrize("name", PRUNERS)
def test_every_entry_is_a_frozen_selector_with_a_docstring_and_working_defaults(name):
    method = PRUNERS[name]
    pruner = make_pruner(name)
    assert isinstance(pruner, Selector)
    assert method.__doc__
    assert "Cost O(" in method.__doc__ or "O(" in method.__doc__
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        pruner.anything = 1
    for field in dataclasses.fields(method):
        assert field.name in method.__doc__
    assert make_pruner(name) == pruner


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
        ValueError, match="unknown pruner 'otprun'; known: divprune, dpp, .*otprune"
    ):
        make_pruner("otprun")


def test_an_unknown_setting_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown setting 'gama' of pruner otprune; known: gamma"):
        make_pruner("otprune", gama=0.1)
    with pytest.raises(ValueError, match="unknown setting 'gamma' of pruner uniform; known: none"):
        make_pruner("uniform", gamma=0.1)


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown preset 'fork' of pruner otprune; known: paper"):
        make_pruner("otprune", preset="fork")
    with pytest.raises(ValueError, match="known: none"):
        make_pruner("uniform", preset="x")
