"""Looks of methods: one each, told apart in print and without colour vision."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from otprune import BUILT_IN
from otprune.registry import LAYER_PRUNERS, MERGERS
from otprune_lmms.reporting.figures.style import BLIND, LAYERS, LOOKS, MERGES, look, shade, styled


def test_every_method_has_a_look_of_its_own():
    names = {*BUILT_IN, "of another package", "of yet another"}
    looks = [look(name, names) for name in sorted(names)]
    for trait in ("name", "colour"):
        values = [getattr(one, trait) for one in looks]
        assert len(set(values)) == len(values), trait
    without_colour = [(one.marker, one.dash) for one in looks]
    assert len(set(without_colour)) == len(without_colour)


def test_the_line_says_what_kind_of_method_it_is():
    assert {name for name, one in LOOKS.items() if one.dash == MERGES} == LOOKS.keys() & set(
        MERGERS
    )
    assert {name for name, one in LOOKS.items() if one.dash == LAYERS} == LOOKS.keys() & set(
        LAYER_PRUNERS
    )


def test_methods_that_look_at_nothing_are_dashed():
    dashed = {name for name, one in LOOKS.items() if one.dash == BLIND}
    assert dashed == {"random", "uniform", "grid", "first_k", "last_k"}


def test_unknown_methods_look_alike_in_every_order_and_differ_from_each_other():
    names = ["zeta", "alpha", "otprune", "mid"]
    first = {name: look(name, names) for name in names}
    assert first == {name: look(name, names[::-1]) for name in names}
    assert len({(one.colour, one.marker) for one in first.values()}) == len(names)


# Severe deuteranopia and protanopia, linear RGB (Machado et al. 2009, table 1, severity 1.0).
DEUTAN = [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.01182, 0.04294, 0.968881],
]
PROTAN = [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
]


@pytest.mark.parametrize("matrix", [DEUTAN, PROTAN], ids=["deuteranopia", "protanopia"])
def test_the_paper_s_methods_differ_in_colour_for_the_colour_blind(matrix):
    names = ("otprune", "divprune", "w2greedy", "random", "uniform")
    linear = np.array([to_rgb(LOOKS[name].colour) for name in names]) ** 2.2
    seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 9 * np.eye(len(names))
    assert apart.min() > 0.25


def test_lines_and_marks_stand_out_from_paper():
    for name, one in LOOKS.items():
        channels = np.array(to_rgb(one.colour))
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        assert 1.05 / (luminance + 0.05) >= 2.2, name


def test_variants_of_a_method_go_from_its_colour_to_a_darker_one():
    base = LOOKS["otprune"]
    looks = [shade(base, place, 3) for place in range(3)]
    assert looks[0].colour.lower() == base.colour.lower()
    light = [sum(to_rgb(one.colour)) for one in looks]
    assert light[0] > light[1] > light[2]
    assert shade(base, 0, 1) == base


def test_the_style_ends_with_its_block():
    before = dict(mpl.rcParams)
    with styled():
        assert mpl.rcParams["axes.grid"] is True
    assert dict(mpl.rcParams) == before


def test_figures_and_report_load_no_torch():
    code = (
        "import sys, otprune_lmms.reporting.figures, otprune_lmms.reporting.report\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
