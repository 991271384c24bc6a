"""The page of printed numbers beside ours, and printed costs computed again."""

import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from otprune.registry import LAYER_PRUNERS, MERGERS, SELECTORS
from otprune_lmms.experiments.cost.printed import Cost, computed

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def script():
    scripts = str(ROOT / "scripts")
    sys.path.insert(0, scripts)
    try:
        return importlib.import_module("conformance_page")
    finally:
        sys.path.remove(scripts)


def cost(**given):
    line = {"variant": "", "model": "LLaVA-1.5-7B", "keep_tokens_or_ratio": float("nan")}
    return computed(line | {"benchmark": "tflops", "budget_kind": "full"} | given)


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ({"source": "OTPrune arXiv:2602.20205v2 Table 1", "method": "Original"}, "3.228"),
        (
            {
                "source": "OTPrune arXiv:2602.20205v2 Table 1", "method": "OTPrune",
                "budget_kind": "ratio", "keep_tokens_or_ratio": 0.098,
            },
            "0.512",
        ),
        ({"source": "TransPrune arXiv:2507.20630 Table 1", "method": "Original"}, "3.82"),
        (
            {
                "source": "TransPrune arXiv:2507.20630 Table 1", "method": "FastV",
                "budget_kind": "schedule", "keep_tokens_or_ratio": 0.25,
            },
            "1.12",
        ),
        (
            {
                "source": "TransPrune arXiv:2507.20630 Tables 4-5", "method": "VisionZip+PDrop",
                "budget_kind": "schedule", "keep_tokens_or_ratio": 288,
            },
            "0.88",
        ),
        (
            {
                "source": "TOPS arXiv:2606.27161 Table 4", "method": "TOPS",
                "budget_kind": "tokens", "keep_tokens_or_ratio": 320, "model": "LLaVA-NeXT-7B",
            },
            None,
        ),
        (
            {
                "source": "TOPS arXiv:2606.27161 Table 4", "method": "VisionZip",
                "budget_kind": "tokens", "keep_tokens_or_ratio": 320, "model": "LLaVA-NeXT-7B",
            },
            "4.2",
        ),
        ({"source": "DiffPrune (2026) Table 4", "method": "Original"}, None),
    ],
)  # fmt: skip
def test_printed_costs_follow_from_their_settings(line, printed):
    found = cost(**line)
    assert (found is None) == (printed is None)
    if printed is not None:
        assert found.equals(printed)


@pytest.mark.parametrize(
    ("value", "printed", "equal"),
    [(1.549, "1.5", True), (1.551, "1.5", False), (3.2284, "3.228", True), (99.6, "100", True)],
)
def test_numbers_are_equal_to_the_digits_that_are_printed(value, printed, equal):
    assert Cost(value, "").equals(printed) == equal


def test_the_page_is_what_the_script_writes_today(script):
    made = "\n".join(script.page(script.printed_numbers(), {}))
    assert (ROOT / "docs" / "conformance.md").read_text() == made
    assert "No printed score has been run here" in made


def test_what_docstrings_say_of_the_released_code_is_there_whole(script):
    said = script.deviations(SELECTORS["otprune"])
    assert len(said) == 6
    assert all(said)
    methods = {**SELECTORS, **MERGERS, **LAYER_PRUNERS}
    assert sum(bool(script.deviations(method)) for method in methods.values()) >= 12


def test_scores_of_a_sweep_stand_below_the_printed_ones(script, tmp_path, made):
    row = {"model": "llava-1.5-7b", "suite": "hub"}
    records = [
        made.record("otprune-0.098", "gqa", "exact_match", 0.57, keep_ratio=0.098, **row),
        made.record("otprune-0.098", "pope", "pope_f1_score", 0.75, keep_ratio=0.098, **row),
        made.record("unpruned", "gqa", "exact_match", 0.62, **row),
    ]
    folder = made.folder(tmp_path, pd.DataFrame(records))
    (folder / "intervals.csv").write_text(
        "model,row,task,value,low,high,documents,clusters\n"
        "llava-1.5-7b,otprune-0.098,gqa,57.0,55.5,58.5,100,100\n"
        "llava-1.5-7b,otprune-0.098,pope,75.0,74.0,76.0,100,100\n"
    )
    runs = script.runs_of([folder])
    assert len(runs) == 3
    lines = list(script.page(script.printed_numbers(), runs))
    (ours,) = [line for line in lines[lines.index("## `otprune`") :] if "run here" in line]
    assert "57.0 [55.5, 58.5] inside" in ours
    assert "75.0 [74.0, 76.0] **outside**" in ours
    assert any("62.0 (no interval)" in line for line in lines)
    assert not any("No printed score has been run" in line for line in lines)


def test_a_sweep_of_the_embedded_suite_is_refused(script, tmp_path, made):
    records = [made.record("unpruned", "gqa", "exact_match", 0.62, suite="mini")]
    folder = made.folder(tmp_path, pd.DataFrame(records))
    with pytest.raises(ValueError, match="must be of the suite hub, got 'mini'"):
        script.runs_of([folder])
