"""Pruning configs: equal settings are equal configs, different ones differ everywhere."""

import itertools
import json
import re
from pathlib import Path

import pytest

from otprune import PRUNERS, LayerPruner, Merger
from otprune.registry import LAYER_PRUNERS
from otprune_lmms.pruning_config import PruningConfig

ROOT = Path(__file__).parents[2]
DIFFERENT = [
    PruningConfig(),
    PruningConfig.make("otprune", 0.098),
    PruningConfig.make("otprune", 0.0980001),
    PruningConfig.make("otprune", 0.098, layer=2),
    PruningConfig.make("otprune", 0.098, layer=2, positions="compact"),
    PruningConfig.make("otprune", 0.098, positions="original"),
    PruningConfig.make("otprune", 0.098, keep_newlines=True),
    PruningConfig.make("otprune", 0.098, compat="reference"),
    PruningConfig.make("otprune", 0.098, gamma=0.05),
    PruningConfig.make("otprune", 0.098, gamma=0.050000001),
    PruningConfig.make("otprune", 0.098, variant="paper"),
    PruningConfig.make("otprune", 0.098, preset="released"),
    PruningConfig.make("otprune", k=56),
    PruningConfig.make("random", 0.098),
    PruningConfig.make("random", 0.098, seed=1),
    PruningConfig.make("divprune", 1.0),
    PruningConfig.make("otprune", 0.098, match="average"),
    PruningConfig.make("otprune", 0.098, match="flops"),
    PruningConfig.make("otprune", 0.098, match="average", layer=2),
    PruningConfig.make("pooling", 0.25),
    PruningConfig.make("tome", 0.25),
    PruningConfig.make("prumerge", 0.25),
    PruningConfig.make("prumerge", 0.25, preset="plus"),
    PruningConfig.make("transprune"),
    PruningConfig.make("transprune", preset="low"),
    PruningConfig.make("transprune", 0.4),
    PruningConfig.make("transprune", 0.4, preset="low"),
    PruningConfig.make("transprune", 0.4, match="flops"),
    PruningConfig.make("transprune", 0.4, positions="original"),
    PruningConfig.make("fastv", k=64),
    PruningConfig.make("fastv", k=64, schedule="3:0.5"),
    PruningConfig.make("fastv", k=64, schedule="3:0.25"),
]

BEFORE = {
    "unpruned": "e06963329a60ed44a7edc87a944f1aa2bbea20ff80840a8d2c3815b8a851bd03",
    "otprune-0.098": "d19fdab1bcbc317ed4ef6afc27269f45f8fa519ec0cd13ce252e91b1d79d0614",
    "divprune-0.098": "fa80e763699c0316446c9f4cd6b3a0ba28edcda7199c4534355dd24d4392e62d",
    "random-0.098-seed1": "c1a04e29c48f6dd4eeaa1aa4c6ed0ecaed5b56f8fb495ace27920a1ec8af9aab",
    "otprune-k85": "1eba237dfe2a39eb0ee1bc24a172bfa27986d31bd9dc50c9a59cc26dffe723c6",
    "random-k57": "82201b5f0d7dca2a00a211f11d246f65f0e2e08f94b9d7d4e95564ca02b998b9",
    "otprune-0.098-layer2": "c860d379ccc03618ac7065900b4d7a0e26ba2461bd0a2b76314fa605906cbe6a",
    "divprune-0.4-original": "232f7c56131331a6b26c25a7e1974d11431abed96597aaa33927d15e511c1be3",
}
"""Fingerprints of configs of committed results, by label."""


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(DIFFERENT, 2)))
def test_different_settings_differ_in_config_label_and_fingerprint(one, other):
    assert one != other
    assert one.label != other.label
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("config", DIFFERENT, ids=lambda config: config.label)
def test_a_config_survives_plain_json_and_its_label_is_a_file_name(config):
    again = PruningConfig.make(**json.loads(json.dumps(config.as_dict())))
    assert again == config
    assert hash(again) == hash(config)
    assert again.fingerprint == config.fingerprint
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", config.label)


def test_ways_of_writing_one_setting_are_one_config():
    plain = PruningConfig.make("otprune", 0.098)
    for same in (
        PruningConfig.make("otprune", keep_ratio=0.098, gamma=0.01),
        PruningConfig.make("otprune", 0.098, positions="compact"),
        PruningConfig.make("otprune", 0.098, settings={"variant": "code"}),
        PruningConfig("otprune", 0.098, settings=(("order", "spatial"),)),
    ):
        assert same == plain
        assert same.label == plain.label == "otprune-0.098"
        assert same.fingerprint == plain.fingerprint
    assert PruningConfig.make("divprune", 1) == PruningConfig.make("divprune", 1.0)
    assert (
        PruningConfig.make("divprune", 1).fingerprint
        == PruningConfig.make("divprune", 1.0).fingerprint
    )


def test_labels_say_what_differs_from_the_usual():
    assert PruningConfig().label == "unpruned"
    assert PruningConfig.make("divprune", 0.25, layer=2).label == "divprune-0.25-layer2"
    assert PruningConfig.make("otprune", 0.098, gamma=0.05).label == "otprune-0.098-gamma0.05"
    assert PruningConfig.make("random", k=64, seed=3).label == "random-k64-seed3"


# Methods with another setting since results/mini-methods was answered: MMTok's exclude_padding.
CHANGED_SINCE = {"mmtok"}


def test_configs_of_committed_results_keep_their_labels_and_fingerprints():
    found = {}
    for path in sorted((ROOT / "results").glob("*/manifest.json")):
        for one in json.loads(path.read_text()).get("configs", ()):
            config = PruningConfig.make(**one["config"])
            assert config.label == one["setting"]
            same = config.fingerprint == one["fingerprint"]
            assert same != (config.method in CHANGED_SINCE), config.label
            found[config.label] = config.fingerprint
    assert found.items() >= BEFORE.items()


def test_what_a_budget_is_about_is_dropped_where_it_is_the_usual():
    assert PruningConfig.make("otprune", 0.5, match="kept") == PruningConfig.make("otprune", 0.5)
    assert PruningConfig.make("tome", 0.5, match="kept") == PruningConfig.make("tome", 0.5)
    assert PruningConfig.make("fastv", 0.5, match="average") == PruningConfig.make("fastv", 0.5)
    assert PruningConfig.make("fastv", 0.5, positions="original") == PruningConfig.make(
        "fastv", 0.5
    )
    assert PruningConfig.make("transprune", 0.5, positions="compact") == PruningConfig.make(
        "transprune", 0.5
    )
    assert PruningConfig.make("transprune", preset="high") == PruningConfig.make("transprune")
    assert (
        PruningConfig.make("transprune", 1).fingerprint
        == PruningConfig.make("transprune", 1.0).fingerprint
    )


def test_a_setting_without_which_the_others_cannot_be_stays():
    config = PruningConfig.make(
        "transprune", schedule="1:0.5", observe_from=0, observe_to=0, weight=0.5
    )
    assert dict(config.settings) == {"schedule": "1:0.5", "observe_from": 0, "observe_to": 0}


def test_labels_of_schedules_and_of_other_budgets():
    assert PruningConfig.make("transprune").label == "transprune"
    assert PruningConfig.make("transprune", preset="low").label == "transprune-low"
    assert PruningConfig.make("transprune", 0.4, preset="low").label == "transprune-0.4-low"
    assert PruningConfig.make("fastv", k=64).label == "fastv-k64"
    assert PruningConfig.make("fastv", k=64, match="flops").label == "fastv-k64-flops"
    assert (
        PruningConfig.make("otprune", 0.5, layer=2, match="average").label
        == "otprune-0.5-average-layer2"
    )
    long = PruningConfig.make("fastv", 0.5, schedule="2:0.5/4:0.25")
    assert re.fullmatch(r"fastv-0.5-schedule2_0.5_4_0.25-[0-9a-f]{8}", long.label)


@pytest.mark.parametrize("method", sorted(LAYER_PRUNERS))
def test_every_schedule_makes_a_config_without_a_budget(method):
    config = PruningConfig.make(method)
    pruning = config.pruning
    assert pruning is not None
    assert isinstance(pruning.pruner, PRUNERS[method])
    assert pruning.target is None
    assert config.label == method
    assert PruningConfig.make(**config.as_dict()) == config


def test_methods_that_draw_have_a_seed_and_no_others():
    assert PruningConfig.make("random", 0.5).seed == 0
    assert PruningConfig.make("random", 0.5, seed=3).seed == 3
    for config in (
        PruningConfig(),
        PruningConfig.make("otprune", 0.5),
        PruningConfig.make("tome", 0.5),
        PruningConfig.make("fastv"),
    ):
        assert config.seed is None


def test_a_changed_default_of_a_method_changes_the_fingerprint(monkeypatch):
    import dataclasses

    from otprune.selectors.random import Random

    @dataclasses.dataclass(frozen=True, slots=True)
    class Reseeded(Random):
        seed: int = 7

    before = PruningConfig.make("random", 0.5)
    known = before.fingerprint
    monkeypatch.setitem(PRUNERS, "random", Reseeded)
    assert PruningConfig.make("random", 0.5).fingerprint != known


@pytest.mark.parametrize("method", sorted(PRUNERS))
def test_every_method_makes_a_config(method):
    pruning = PruningConfig.make(method, 0.25).pruning
    assert pruning is not None
    kind = PRUNERS[method]
    if issubclass(kind, LayerPruner):
        assert isinstance(pruning.pruner, kind)
        assert pruning.target is not None
        assert pruning.target.match == "average"
    else:
        assert isinstance(pruning.stages[0].method, kind)
    assert issubclass(kind, Merger) == isinstance(pruning.before, Merger)


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
        ({"method": "tome"}, "exactly one of keep_ratio and k"),
        ({"method": "tome", "k": 5, "layer": 2}, "layer must be 0 for ToMe"),
        ({"method": "fastv", "k": 5, "layer": 2}, "layer must be 0 for FastV, whose schedule"),
        ({"method": "fastv", "k": 5, "keep_ratio": 0.5}, "exactly one of keep_ratio and k"),
        ({"method": "fastv", "k": 0}, "k must be an integer >= 1, got 0"),
        ({"method": "fastv", "keep_ratio": 1.5}, r"keep_ratio must be in \(0, 1\], got 1.5"),
        ({"method": "fastv", "k": 5, "match": "kept"}, "match must be average or flops for FastV"),
        ({"method": "fastv", "match": "flops"}, "match='flops' needs keep_ratio or k"),
        ({"method": "fastv", "schedule": "2"}, "schedule must be layer:share or layer:count"),
        ({"method": "otprune", "k": 5, "match": "cost"}, "match must be kept, average or flops"),
        ({"match": "flops"}, "match needs a method"),
        ({"keep_ratio": 0.1}, "keep_ratio needs a method"),
        ({"layer": 2}, "layer needs a method"),
        ({"gamma": 0.1}, "gamma needs a method"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        PruningConfig.make(**settings)
