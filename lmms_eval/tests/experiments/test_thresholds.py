"""Thresholds chosen on an experiment's images, by what picks add."""

import pytest

from helpers import request, tiny
from otprune.adaptive import MOST
from otprune_lmms.engine.prepare import RequestPreparer
from otprune_lmms.experiments.diagnostics.diagnose import DiagnosticsOptions, diagnose
from otprune_lmms.experiments.thresholds import thresholds_of
from otprune_lmms.pruning_config import PruningConfig

CONFIGS = [
    PruningConfig.make("otprune", keep_ratio=0.02),
    PruningConfig.make("otprune", keep_ratio=0.02, gamma="auto"),
    PruningConfig.make("divprune", k=30),
    PruningConfig.make("fastervlm", k=60),
]


def chosen(configs, count=3):
    model = tiny()
    preparer = RequestPreparer(model, "", "first_frame")
    return thresholds_of(model, preparer, [request(i) for i in range(count)], configs, "tiny")


def test_under_its_threshold_a_setting_keeps_its_budget_on_average():
    found = chosen(CONFIGS)
    adaptive = [
        PruningConfig.make(**config.as_dict(), adaptive=True, threshold=one.threshold)
        for config, one in zip(CONFIGS, found, strict=True)
    ]
    lines = diagnose(
        tiny(),
        [request(i) for i in range(3)],
        adaptive,
        model_name="tiny",
        options=DiagnosticsOptions(exact=False),
    )
    for config, one in zip(adaptive, found, strict=True):
        counts = [len(line["kept"]) for line in lines if line["setting"] == config.label]
        assert len(counts) == one.images
        assert sum(counts) / len(counts) == pytest.approx(one.counts[0])
        assert one.counts[0] == pytest.approx(one.budget, abs=1)
        assert (min(counts), max(counts)) == (one.counts[1], one.counts[5])
        assert max(counts) <= MOST * one.budget


def test_settings_without_a_threshold_are_refused():
    for config in (
        PruningConfig.make("random", k=5),
        PruningConfig.make("otprune", k=5, layer=1),
        PruningConfig.make("divprune", k=5, match="flops"),
        PruningConfig.make(),
    ):
        with pytest.raises(ValueError, match="has the same count for every image"):
            chosen([config], 1)
