"""What settings keep of an image: every kind of method, and what cannot be shown."""

import numpy as np
import pytest
import torch

from helpers import TINY_ANYRES, request, tiny
from otprune.pruning import Trace
from otprune_lmms.experiments.kept_image import (
    configs_to_show,
    first_kept_image,
    kept_image,
    kept_mask,
)
from otprune_lmms.models.protocol import ImageView
from otprune_lmms.pruning_config import PruningConfig

CONFIGS = [
    PruningConfig.make("first_k", 0.25),
    PruningConfig.make("tome", 0.25),
    PruningConfig.make("prumerge", 0.25),
    PruningConfig.make("fastv", schedule="1:0.5/2:0.25"),
    PruningConfig.make("sparsevlm", schedule="1:0.5/2:0.25"),
    PruningConfig.make("vtw", schedule="2:0"),
]


def test_one_config_of_each_method_is_shown():
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
    assert [config.label for config in configs_to_show(configs)] == [
        "otprune-0.2-average", "tome-0.5", "fastv-0.5", "vtw",
    ]  # fmt: skip


def test_what_is_left_is_marked_whatever_the_method():
    found = kept_image(tiny(), request(0), CONFIGS)
    assert found.pixels.shape == (336, 336, 3)
    assert found.pixels.dtype == np.uint8
    assert found.masks.shape == (len(CONFIGS), 24, 24)
    assert [one["setting"] for one in found.settings] == [config.label for config in CONFIGS]
    counts = found.masks.sum(axis=(1, 2)).tolist()
    assert counts[0] == 144
    # A token that stands for no single patch has none.
    assert 0 < counts[1] <= 144
    assert 0 < counts[2] <= 144
    assert counts[3:] == [144, 144, 0]
    assert found.masks[0, :6].all()


def test_what_cannot_be_shown_is_said_and_is_no_error(caplog):
    text = request(1, pictures=())
    assert first_kept_image(tiny(), [text], CONFIGS) is None
    assert first_kept_image(tiny(), [request(0)], [PruningConfig()]) is None
    assert first_kept_image(tiny(TINY_ANYRES), [text, request(0)], CONFIGS) is None
    assert caplog.text.count("no figure of kept patches") == 3
    assert "single tile" in caplog.text


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
    view = ImageView("", np.zeros((2, 2, 3)), np.arange(4).reshape(2, 2))
    trace = Trace(kept={layer: [torch.tensor(one).long()] for layer, one in kept.items()})
    np.testing.assert_array_equal(kept_mask(trace, view).ravel(), np.array(want, dtype=bool))
