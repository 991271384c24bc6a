"""Cells: equal settings are equal cells, different ones differ everywhere."""

import itertools
import json
import re

import pytest

from otprune import PRUNERS
from otprune_lmms.cells import Cell

DIFFERENT = [
    Cell(),
    Cell.make("otprune", 0.098),
    Cell.make("otprune", 0.0980001),
    Cell.make("otprune", 0.098, layer=2),
    Cell.make("otprune", 0.098, layer=2, positions="compact"),
    Cell.make("otprune", 0.098, positions="original"),
    Cell.make("otprune", 0.098, keep_newlines=True),
    Cell.make("otprune", 0.098, compat="reference"),
    Cell.make("otprune", 0.098, gamma=0.05),
    Cell.make("otprune", 0.098, gamma=0.050000001),
    Cell.make("otprune", 0.098, variant="paper"),
    Cell.make("otprune", 0.098, preset="released"),
    Cell.make("otprune", k=56),
    Cell.make("random", 0.098),
    Cell.make("random", 0.098, seed=1),
    Cell.make("divprune", 1.0),
]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(DIFFERENT, 2)))
def test_different_settings_differ_in_cell_label_and_fingerprint(one, other):
    assert one != other
    assert one.label != other.label
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("cell", DIFFERENT, ids=lambda cell: cell.label)
def test_a_cell_survives_plain_json_and_its_label_is_a_file_name(cell):
    again = Cell.make(**json.loads(json.dumps(cell.settings_dict())))
    assert again == cell
    assert hash(again) == hash(cell)
    assert again.fingerprint == cell.fingerprint
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", cell.label)


def test_ways_of_writing_one_setting_are_one_cell():
    plain = Cell.make("otprune", 0.098)
    for same in (
        Cell.make("otprune", keep_ratio=0.098, gamma=0.01),
        Cell.make("otprune", 0.098, positions="compact"),
        Cell.make("otprune", 0.098, settings={"variant": "code"}),
        Cell("otprune", 0.098, settings=(("order", "spatial"),)),
    ):
        assert same == plain
        assert same.label == plain.label == "otprune-0.098"
        assert same.fingerprint == plain.fingerprint
    assert Cell.make("divprune", 1) == Cell.make("divprune", 1.0)
    assert Cell.make("divprune", 1).fingerprint == Cell.make("divprune", 1.0).fingerprint


def test_labels_say_what_differs_from_the_usual():
    assert Cell().label == "unpruned"
    assert Cell.make("divprune", 0.25, layer=2).label == "divprune-0.25-layer2"
    assert Cell.make("otprune", 0.098, gamma=0.05).label == "otprune-0.098-gamma0.05"
    assert Cell.make("random", k=64, seed=3).label == "random-k64-seed3"


def test_a_changed_default_of_a_method_changes_the_fingerprint(monkeypatch):
    import dataclasses

    from otprune.pruners.random import Random

    @dataclasses.dataclass(frozen=True, slots=True)
    class Reseeded(Random):
        seed: int = 7

    before = Cell.make("random", 0.5)
    known = before.fingerprint
    monkeypatch.setitem(PRUNERS, "random", Reseeded)
    assert Cell.make("random", 0.5).fingerprint != known


@pytest.mark.parametrize("method", sorted(PRUNERS))
def test_every_method_makes_a_cell(method):
    pruning = Cell.make(method, 0.25).pruning()
    assert pruning is not None
    assert isinstance(pruning.stages[0].selector, PRUNERS[method])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "otprone", "keep_ratio": 0.1}, "method must be one of .* got 'otprone'"),
        ({"method": ["otprune"], "keep_ratio": 0.1}, "method must be one of"),
        ({"method": "otprune"}, "exactly one of keep_ratio and k"),
        ({"method": "otprune", "keep_ratio": 0.1, "k": 5}, "exactly one of keep_ratio and k"),
        ({"method": "otprune", "keep_ratio": 9.8}, r"keep_ratio must be in \(0, 1\], got 9.8"),
        ({"method": "otprune", "keep_ratio": 0}, r"keep_ratio must be in \(0, 1\], got 0"),
        ({"method": "otprune", "keep_ratio": True}, r"keep_ratio must be in \(0, 1\]"),
        ({"method": "otprune", "k": 0}, "k must be"),
        ({"method": "otprune", "keep_ratio": 0.1, "layer": -1}, "layer must be an integer >= 0"),
        ({"method": "otprune", "keep_ratio": 0.1, "gama": 1}, "unknown setting 'gama'"),
        ({"method": "otprune", "keep_ratio": 0.1, "gamma": [1]}, "gamma must be a plain value"),
        ({"method": "otprune", "keep_ratio": 0.1, "positions": "old"}, "positions must be"),
        ({"method": "otprune", "keep_ratio": 0.1, "preset": "x"}, "unknown preset"),
        ({"keep_ratio": 0.1}, "keep_ratio needs a method"),
        ({"layer": 2}, "layer needs a method"),
        ({"gamma": 0.1}, "gamma needs a method"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Cell.make(**settings)
