"""A broken image is reported, counted, left out of every row, and does not end the run."""

import json
import re

import pandas as pd
import pytest

from broken_suites import BROKEN, experiment, png, rows
from otprune_lmms.journal import Journal
from otprune_lmms.results.samples import read_samples

PRUNING = {"methods": ["otprune"], "keep_ratios": [0.05], "controls": False}
OTHER = ("--without-java", "--quiet")
GONE = {"pope": [1, 3, 4, 6, 8, 9, 11, 12, 14], "mme": [2, 3]}
KINDS = dict(zip(GONE["pope"], BROKEN.values(), strict=True))


def tasks_of(keep=lambda task, number: True):
    """20 documents of pope, 9 of them broken in 9 ways; 6 of mme, one of them broken."""
    made = {
        "pope": rows("pope", 20, {n: content for n, (content, _) in KINDS.items()}),
        "mme": rows("mme", 6, {3: png(1)[:-40]}),
    }
    return {t: [row for n, row in enumerate(many) if keep(t, n)] for t, many in made.items()}


@pytest.fixture(scope="module")
def run(forks, tmp_path_factory):
    """Folder and last words of a run over the broken suite."""
    folder = tmp_path_factory.mktemp("broken")
    experiment(folder, tasks_of(), pruning=PRUNING)
    return folder, forks.command(folder, "run", "try.yaml", *OTHER)


def manifest(folder):
    return json.loads((folder / "outputs" / "try" / "manifest.json").read_text())


def test_the_run_ends_well_and_says_how_many_and_why(run):
    folder, said = run
    assert said["status"] == 0, said["text"]
    assert "pope: 9 of 20 documents cannot be used and are left out of every row" in (said["text"])
    assert "mme: 2 of 6 documents cannot be used" in said["text"]
    assert "and 4 more" in said["text"]
    assert "Traceback" not in said["text"]
    failed = manifest(folder)["failed"]
    assert [(one["task"], one["doc_id"]) for one in failed] == [
        (task, number) for task, many in GONE.items() for number in many
    ]
    for one in failed[:9]:
        assert re.search(KINDS[one["doc_id"]][1], one["reason"]), one
    assert "runcated" in failed[10]["reason"]
    assert failed[9]["reason"] == "scored as one with document 3"
    assert manifest(folder)["runs"][0]["counts"]["tiny"]["failed"] == 10


def test_every_row_is_scored_on_the_same_documents(run):
    folder, _ = run
    records = pd.read_csv(folder / "outputs" / "try" / "records.csv")
    assert set(records["row"]) == {"unpruned", "otprune-0.05"}
    assert dict(records.groupby("task")["documents"].unique().map(list)) == {
        "mme": [4],
        "pope": [11],
    }
    found = read_samples(folder / "outputs" / "try")
    for (_, task), part in found.groupby(["setting", "task"]):
        assert sorted(part["doc_id"]) == [
            n for n in range({"pope": 20, "mme": 6}[task]) if n not in GONE[task]
        ]
    page = (folder / "outputs" / "try" / "table.md").read_text()
    assert "- pope: 9 documents could not be used and are left out of every row" in page


def test_nobody_answers_them(run):
    folder, _ = run
    with Journal(folder / "logs" / "answers", readonly=True) as journal:
        asked = {(one.task, one.doc_id) for one in journal}
        assert len(journal) == 2 * (11 + 4)
    assert not asked & {(task, number) for task, many in GONE.items() for number in many}


def test_scores_are_those_of_a_suite_without_them(run, forks, tmp_path):
    folder, _ = run
    experiment(tmp_path, tasks_of(lambda task, n: n not in GONE[task]), pruning=PRUNING)
    # The same questions: the other run's journal has all the answers.
    said = forks.command(
        tmp_path, "run", "try.yaml", "--journal", folder / "logs" / "answers", *OTHER
    )
    assert said["status"] == 0, said["text"]
    assert manifest(tmp_path)["failed"] == []
    assert manifest(tmp_path)["runs"][0]["counts"]["tiny"]["generated"] == 0
    tables = [pd.read_csv(one / "outputs" / "try" / "records.csv") for one in (folder, tmp_path)]
    pd.testing.assert_frame_equal(*tables)


def test_a_second_run_finds_the_same_and_does_nothing_twice(run, forks):
    folder, _ = run
    before = (folder / "outputs" / "try" / "records.csv").read_bytes()
    said = forks.command(folder, "run", "try.yaml", *OTHER)
    assert said["status"] == 0, said["text"]
    assert "9 of 20 documents" in said["text"]
    assert (folder / "outputs" / "try" / "records.csv").read_bytes() == before
    assert manifest(folder)["runs"][1]["counts"]["tiny"]["generated"] == 0


def test_strict_ends_at_the_first(run, forks):
    folder, _ = run
    for command in ("run", "sweep"):
        said = forks.command(
            folder, command, "try.yaml", "--strict", "--output-dir", "strict", *OTHER
        )
        assert said["status"] == 1
        assert "document 1 of pope (test): image file is truncated" in said["text"]
        assert "Traceback" not in said["text"]
        assert not (folder / "strict").exists()


def test_too_many_are_an_error_without_strict_too(forks, tmp_path):
    broken = {n: b"no picture" for n in range(5)}
    experiment(tmp_path, {"pope": rows("pope", 8, broken)})
    said = forks.command(tmp_path, "run", "try.yaml", *OTHER)
    assert said["status"] == 1
    assert (
        "5 of the 8 documents of task pope cannot be used, too many to be left out: "
        in (said["text"])
    )
    assert "document 0 (cannot identify image file" in said["text"]
    assert not list((tmp_path / "logs").rglob("part-*.jsonl")), "found before the first answer"
    assert not (tmp_path / "outputs").exists()


def test_a_document_whose_request_cannot_be_built(forks, tmp_path):
    made = rows("pope", 6, {})
    made[2]["question"] = None
    experiment(tmp_path, {"pope": made})
    said = forks.command(tmp_path, "run", "try.yaml", *OTHER)
    assert said["status"] == 0, said["text"]
    (failed,) = manifest(tmp_path)["failed"]
    assert (failed["task"], failed["doc_id"], failed["split"]) == ("pope", 2, "test")
    assert "NoneType" in failed["reason"]
    assert set(pd.read_csv(tmp_path / "outputs" / "try" / "records.csv")["documents"]) == {5}
    said = forks.command(tmp_path, "run", "try.yaml", "--strict", *OTHER)
    assert said["status"] == 1
    assert "document 2 of pope (test): AttributeError" in said["text"]
