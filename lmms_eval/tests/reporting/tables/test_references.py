"""Unpruned scores are compared with references."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otprune_lmms.benchmarks import OTPRUNE_11
from otprune_lmms.reporting import published
from otprune_lmms.reporting.tables import (
    Reference,
    check_references,
    make_table,
    markdown,
    references_of,
)
from otprune_lmms.reporting.tables.references import REFERENCES, doubted_tasks
from otprune_lmms.results.manifest import Manifest, PrintedRow

quiet = settings(deadline=None, max_examples=40, derandomize=True)

SCORES = {"unpruned": (58.1, 85.0), "otprune-0.1": (50.0, 80.0)}


@pytest.mark.parametrize(
    ("value", "status"),
    [(61.96, "within"), (60.46, "within"), (63.46, "within"), (60.45, "outside"),
     (63.47, "outside"), (0.0, "outside")],
)  # fmt: skip
def test_a_difference_equal_to_the_tolerance_passes(value, status, made):
    records = made.plain({"unpruned": (value, 85.0)})
    checks = check_references(records, {"tiny": {"gqa": (61.96, 1.5)}})
    assert checks["tiny"]["gqa"].status == status
    assert checks["tiny"]["gqa"].value == pytest.approx(value)
    assert checks["tiny"]["pope"].status == "no reference"


@quiet
@given(value=st.floats(0, 100), reference=st.floats(0, 100), tolerance=st.floats(0, 50))
def test_within_means_no_farther_than_the_tolerance(made, value, reference, tolerance):
    records = made.plain({"unpruned": (value, 1)})
    check = check_references(records, {"tiny": {"gqa": (reference, tolerance)}})["tiny"]["gqa"]
    farther = abs(check.value - reference) - tolerance
    assert farther <= 1e-8 if check.status == "within" else farther >= -1e-8


def test_a_failed_task_is_marked_in_every_row_and_named(made, entry_of):
    references = {"tiny": {"gqa": Reference(61.96, 1.5, "a paper"), "pope": Reference(85.84, 1.5)}}
    table = make_table(made.plain(SCORES), made.manifest, references=references)
    for row in SCORES:
        assert entry_of(table, row, "GQA").doubted
        assert not entry_of(table, row, "POPE").doubted
        assert entry_of(table, row, "mean of ratios").doubted, "one of its tasks is in doubt"
    assert (
        "† tiny GQA: unpruned 58.1, reference 61.96 (a paper): outside ±1.5, so the pruned scores "
        "of this task are not to be trusted"
    ) in table.notes
    page = markdown(table, made.origin)
    assert re.search(r"^\| OTPrune 0\.1 \|.* \| 50\.0† \| 80\.0 \|", page, flags=re.M)
    passed = make_table(
        made.plain(SCORES), made.manifest, references={"tiny": {"gqa": (58, 1), "pope": (85, 1)}}
    )
    assert "†" not in markdown(passed, made.origin)
    assert "not checked" not in markdown(passed, made.origin)


def test_without_a_reference_the_table_says_that_nothing_was_checked(made, entry_of):
    table = make_table(made.plain(SCORES), made.manifest)
    assert not entry_of(table, "otprune-0.1", "GQA").doubted
    assert any(
        note.startswith("tiny: no reference for the unpruned score (all tasks)")
        for note in table.notes
    )
    some = make_table(made.plain(SCORES), made.manifest, references={"tiny": {"gqa": (58, 1)}})
    assert any("no reference for the unpruned score (POPE)" in note for note in some.notes)


def test_an_unpruned_model_that_was_not_run_passes_nothing(made):
    records = made.plain({"otprune-0.1": (50.0, 80.0)})
    checks = check_references(records, {"tiny": {"gqa": (61.96, 1.5)}})
    assert checks["tiny"]["gqa"].status == "not measured"
    assert doubted_tasks(checks) == {"tiny": frozenset()}
    lost = made.plain(SCORES)
    lost.loc[lost["row"] == "unpruned", "value"] = None
    assert (
        check_references(lost, {"tiny": {"gqa": (61.96, 1.5)}})["tiny"]["gqa"].status
        == "not measured"
    )


def test_other_documents_are_not_compared_with_a_reference(made):
    references = {"tiny": {"gqa": Reference(61.96, 1.5, "", 12)}}
    assert check_references(made.plain(SCORES), references)["tiny"]["gqa"].status == "no reference"
    twelve = made.plain(SCORES, documents=12)
    assert check_references(twelve, references)["tiny"]["gqa"].status == "outside"


@pytest.mark.parametrize("tolerance", [-0.1, float("nan")])
def test_a_tolerance_that_cannot_be_is_refused(tolerance, made):
    with pytest.raises(ValueError, match="tolerance of tiny on gqa must be .* at least 0"):
        check_references(made.plain(SCORES), {"tiny": {"gqa": (61.96, tolerance)}})


def test_the_paper_models_have_the_published_unpruned_scores():
    found = references_of(Manifest("A try"))
    for model, name in (
        ("llava-v1.5-7b", "LLaVA-1.5-7B"),
        ("llava-v1.5-13b", "LLaVA-1.5-13B"),
        ("llava-v1.6-vicuna-7b", "LLaVA-NeXT-7B"),
    ):
        lines = published.load(source="OTPrune arXiv:2602.20205v2 Table 1", model=name)
        original = lines[lines["method"] == "Original"].set_index("task")["value"]
        assert {task: found[model][task].value for task in OTPRUNE_11} == {
            task: original[task] for task in OTPRUNE_11
        }
    small = found["llava-v1.5-7b"]
    assert small["gqa"] == Reference(61.96, 1.5, "OTPrune arXiv:2602.20205v2 Table 1")
    assert small["mme"][:2] == (1506, 30)
    assert small["coco2017_cap_val"][:2] == (110, 3)


def test_what_the_experiment_prints_comes_first_and_parts_of_a_benchmark_have_none():
    printed = PrintedRow("mine", "Original", "llava-v1.5-7b", {"gqa": 60.0})
    whole = references_of(Manifest("A try", models=("llava-v1.5-7b",), published=(printed,)))
    assert whole["llava-v1.5-7b"]["gqa"] == Reference(60.0, 1.5, "mine")
    assert whole["llava-v1.5-7b"]["pope"].value == 85.84
    limited = Manifest(
        "A try", models=("llava-v1.5-7b",), published=(printed,), limited=frozenset({"gqa"})
    )
    assert "gqa" not in references_of(limited)["llava-v1.5-7b"]
    pruned = PrintedRow("mine", "OTPrune", "llava-v1.5-7b", {"gqa": 1.0})
    found = references_of(Manifest("A try", models=("llava-v1.5-7b",), published=(pruned,)))
    assert found["llava-v1.5-7b"]["gqa"].value == 61.96


def test_a_file_of_references(tmp_path):
    path = tmp_path / "references.yaml"
    path.write_text(
        "tolerance: 2\ntolerances: {mme: 30}\nmodels:\n  mini:\n    source: here\n"
        "    tolerances: {mme: 5}\n    documents: {gqa: 150}\n    scores: {gqa: 74.7, mme: 775}\n"
    )
    found = references_of(Manifest("A try", limited=frozenset({"gqa", "mme"})), path)["mini"]
    assert found == {"gqa": Reference(74.7, 2.0, "here", 150)}
    assert references_of(Manifest("A try"), path)["mini"]["mme"] == Reference(775.0, 5.0, "here")
    (tmp_path / "broken.yaml").write_text("tolerance: [")
    for name in ("broken.yaml", "none.yaml"):
        with pytest.raises(ValueError, match=f"{name} holds no references"):
            references_of(Manifest("A try"), tmp_path / name)
    assert REFERENCES.is_file()
