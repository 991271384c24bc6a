"""The picture of kept patches: every kind of method, and none that it cannot draw."""

import numpy as np
import pytest
import torch

from helpers import TINY, loaded, picture, request
from otprune.pruning import Trace
from otprune_lmms.experiments.pictures import cells_to_show, draw, kept_patches, patches, titles
from otprune_lmms.pruning_config import PruningConfig

CONFIGS = [
    PruningConfig.make("first_k", 0.25),
    PruningConfig.make("tome", 0.25),
    PruningConfig.make("prumerge", 0.25),
    PruningConfig.make("fastv", schedule="1:0.5/2:0.25"),
    PruningConfig.make("sparsevlm", schedule="1:0.5/2:0.25"),
    PruningConfig.make("vtw", schedule="2:0"),
]


def test_one_cell_of_each_method_is_shown():
    configs = [
        PruningConfig(),
        PruningConfig.make("otprune", 0.5),
        PruningConfig.make("otprune", 0.1, layer=2),
        PruningConfig.make("otprune", 0.2, match="average"),
        PruningConfig.make("tome", 0.5),
        PruningConfig.make("uniform", k=5),
        PruningConfig.make("fastv"),
        PruningConfig.make("fastv", 0.5),
        PruningConfig.make("vtw"),
    ]
    assert [config.label for config in cells_to_show(configs)] == [
        "otprune-0.2-average", "tome-0.5", "fastv-0.5", "vtw",
    ]  # fmt: skip


def test_pictures_are_named_by_their_settings_or_shortly():
    short = [PruningConfig.make("otprune", 0.5), PruningConfig.make("tome", k=5)]
    assert titles(short) == ["otprune-0.5", "tome-k5"]
    long = [
        *short,
        PruningConfig.make("sparsevlm", 0.4, schedule="1:0.5/2:0.25"),
        PruningConfig.make("vtw"),
    ]
    assert titles(long) == ["OTPrune 0.5", "ToMe k = 5", "SparseVLM 0.4", "VTW"]


def test_what_is_left_is_drawn_whatever_the_method(tmp_path):
    seen, grid, kept = kept_patches(loaded(TINY), picture("land.png"), "What is it?", CONFIGS)
    assert seen.shape == (336, 336, 3)
    assert grid == (24, 24)
    counts = [int(kept[config.label].sum()) for config in CONFIGS]
    assert counts[0] == 144
    # A token that stands for no single patch has none.
    assert 0 < counts[1] <= 144
    assert 0 < counts[2] <= 144
    assert counts[3:] == [144, 144, 0]
    assert kept[CONFIGS[0].label][:6].all()
    draw(loaded(TINY), request(0), CONFIGS, tmp_path / "kept.png")
    assert (tmp_path / "kept.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("kept", "want"),
    [
        ({}, [1, 1, 1, 1]),
        ({0: [0, 3]}, [1, 0, 0, 1]),
        ({0: [0, 1, 3], 2: [3]}, [0, 0, 0, 1]),
        ({0: [-1, 2, -1]}, [0, 0, 1, 0]),
        ({1: [1, 4, 5]}, [0, 1, 0, 0]),
        ({1: []}, [0, 0, 0, 0]),
    ],
)
def test_patches_are_those_of_the_last_layer_that_drops_some(kept, want):
    trace = Trace(kept={layer: [torch.tensor(one).long()] for layer, one in kept.items()})
    np.testing.assert_array_equal(patches(trace, (2, 2)).ravel(), np.array(want, dtype=bool))
