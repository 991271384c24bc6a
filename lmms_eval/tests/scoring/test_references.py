"""A document whose reference is null or odd is found before anything is answered, and left out."""

from unittest.mock import patch

import pytest

import suites
from broken_suites import experiment
from otprune_lmms.benchmarks import OTPRUNE_11
from otprune_lmms.scoring import ScoringError, TaskScorer, load_tasks
from runs import run, source_of

CAPTIONS = {"coco2017_cap_val": "answer", "flickr30k_test": "caption"}
CAPTIONS |= {"nocaps_val": "annotations_captions", "ok_vqa_val2014": "answers"}
"""Columns of references that are lists."""


def scorer(folder, task, documents):
    """The scorer of a task with other documents."""
    with patch.object(suites, "rows", lambda _: documents):
        made = suites.make_suite(folder, [task])
    return TaskScorer(load_tasks([task], made)[task], task)


def with_references(task, **changed):
    """A task's documents, some with other references."""
    documents = suites.rows(task)
    for number, value in changed.items():
        documents[int(number[1:])][CAPTIONS.get(task, "answer")] = value
    return documents


@pytest.mark.parametrize("task", OTPRUNE_11)
def test_a_null_and_an_odd_reference_are_left_out(task, tmp_path):
    odd = {"scienceqa_img": 7, "gqa": " "}.get(task, [None] if task in CAPTIONS else "maybe")
    one = scorer(tmp_path, task, with_references(task, n2=None, n3=odd))
    assert set(one.failed) == {2, 3}
    assert all("its reference" in reason for reason in one.failed.values())
    right = {number: [answer] for number, answer in enumerate(suites.right(task)[:2])}
    score = one.score(right, without_java=True)
    assert score.documents == 2
    wrong = one.score({n: [suites.wrong(task)[n]] for n in right}, without_java=True)
    assert score.metrics != wrong.metrics or task in CAPTIONS


def test_a_run_lists_it(tmp_path):
    documents = with_references("pope", n1="maybe")
    found = run(
        source_of(experiment(tmp_path, {"pope": documents})), tmp_path / "journal", tmp_path / "out"
    )
    assert [(one["doc_id"], one["task"]) for one in found.failed] == [(1, "pope")]
    assert (
        found.failed[0]["reason"] == "it cannot be scored: AssertionError; its reference is 'maybe'"
    )
    assert found.counts["tiny"]["generated"] == 3
    strict = source_of(experiment(tmp_path / "b", {"pope": documents}, strict=True))
    with pytest.raises(ValueError, match=r"document 1 of pope \(test\): it cannot be scored"):
        run(strict, tmp_path / "journal", tmp_path / "out")


def test_a_caption_without_the_number_of_its_image_is_left_out(tmp_path):
    documents = suites.rows("nocaps_val")
    documents[1]["image_id"] = None
    assert list(scorer(tmp_path, "nocaps_val", documents).failed) == [1]


def test_a_task_none_of_whose_documents_can_be_scored_is_an_error(tmp_path):
    documents = with_references("pope", n0=None, n1="", n2="maybe", n3=" ")
    with pytest.raises(ValueError, match="none of the 4 documents of task pope can be scored"):
        scorer(tmp_path, "pope", documents)


def test_an_answer_that_the_task_s_code_fails_on_is_named_at_once(tmp_path, monkeypatch):
    one = scorer(tmp_path, "pope", suites.rows("pope"))
    judge = one.task.config.process_results

    def fails(document, results):
        if results == ["odd"]:
            raise KeyError("odd")
        return judge(document, results)

    monkeypatch.setattr(one.task.config, "process_results", fails)
    given = {number: ["odd" if number == 2 else "yes"] for number in range(4)}
    with pytest.raises(ScoringError, match="task pope failed on document 2 with the answer 'odd'"):
        one.score(given)
