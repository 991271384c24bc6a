"""The TFLOPs that the papers print."""

import re
from pathlib import Path

import pytest

from otprune.cost import VICUNA_7B, prefill_multiply_adds
from otprune_lmms.benchmarks import OTPRUNE_11
from otprune_lmms.experiments.cost import paper
from otprune_lmms.experiments.cost.paper import MODELS, lengths, printed_tflops


@pytest.mark.parametrize(
    ("model", "full", "pruned", "percent"),
    [
        ("llava-1.5-7b", 3.2280, 0.5122, 15.63),
        ("llava-1.5-13b", 6.2813, 1.0020, 15.71),
        ("llava-1.6-7b", 11.8489, 1.2659, 10.80),
    ],
)
def test_the_lines_of_the_tables(model, full, pruned, percent):
    found = printed_tflops(model)
    assert found.full == pytest.approx(full, abs=5e-5)
    assert found.pruned == pytest.approx(pruned, abs=5e-5)
    assert found.percent == pytest.approx(percent, abs=5e-3)


def test_the_percentage_is_a_mean_of_ratios_and_no_ratio_of_means():
    found = printed_tflops("llava-1.5-7b")
    assert abs(100 * found.pruned / found.full - found.percent) > 0.2
    alone = printed_tflops("llava-1.5-7b", tasks=["gqa"])
    assert 100 * alone.pruned / alone.full == pytest.approx(alone.percent)


def test_divprunes_ablations_are_the_same_tokens_on_four_tasks():
    four = ["mmbench_en_dev_static", "mmmu_val", "pope", "scienceqa_img"]
    assert printed_tflops("llava-1.5-7b", tasks=four).percent == pytest.approx(19.61, abs=5e-3)


def test_the_gated_formula_moves_the_ratio_of_gqa_hardly():
    two = printed_tflops("llava-1.5-7b", tasks=["gqa"])
    three = printed_tflops("llava-1.5-7b", tasks=["gqa"], convention="3ndm")
    assert (round(two.percent, 2), round(three.percent, 2)) == (12.84, 12.92)
    assert three.full * 1e12 == prefill_multiply_adds(VICUNA_7B, 576 + 23, "3ndm")


def test_nothing_pruned_costs_everything():
    for model in MODELS:
        found = printed_tflops(model, keep_ratio=1.0)
        assert found.pruned == found.full
        assert found.percent == 100


def test_the_tasks_are_the_eleven_in_their_order():
    assert tuple(lengths()) == OTPRUNE_11


def test_the_package_ships_the_lengths():
    text = (Path(paper.__file__).parents[3] / "pyproject.toml").read_text()
    assert re.search(r'otprune_lmms = \[.*"experiments/cost/\*\.csv"', text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "llava-next-video-7b"}, "model must be one of llava-1.5-7b, .*next-video"),
        ({"model": "llava-1.5-7b", "tasks": ["gqa", "mmvet"]}, "tasks must be .*, got mmvet"),
        ({"model": "llava-1.5-7b", "tasks": []}, "tasks must be one or more of .*, got none"),
        ({"model": "llava-1.5-7b", "keep_ratio": 1.5}, "keep_ratio"),
        ({"model": "llava-1.5-7b", "convention": "4ndm"}, "convention must be one of 2ndm, 3ndm"),
    ],
)
def test_what_is_not_known_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        printed_tflops(**arguments)
