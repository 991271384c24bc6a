"""Results folders made ready to be handed on, and checked."""

import json

import pytest
from typer.testing import CliRunner

import results_folder
from otprune_lmms.cli.app import app
from otprune_lmms.results.samples import read_samples
from otprune_lmms.results.submission import (
    SUBMISSION,
    answers_digest,
    check_submission,
    write_submission,
)


@pytest.fixture
def folder(tmp_path):
    return results_folder.write_folder(tmp_path / "results", results_folder.SETTINGS[:3])


def test_the_digest_is_of_the_answers_whatever_their_order(folder):
    samples = read_samples(folder)
    digest = answers_digest(samples)
    assert digest == answers_digest(samples.sample(frac=1, random_state=0))
    for change in (
        {"answers": [["other"]] * len(samples)},
        {"requests": [["q"]] * len(samples)},
        {"doc_id": samples["doc_id"] + 100},
        {"setting": samples["setting"] + "x"},
    ):
        assert answers_digest(samples.assign(**change)) != digest
    # Scores follow from the answers.
    assert answers_digest(samples.assign(value=0.0)) == digest


def test_a_submission_is_whole_and_checks(folder, tmp_path):
    found = write_submission(folder, tmp_path / "sent")
    assert check_submission(tmp_path / "sent") == found.answers
    assert check_submission(folder) is None
    there = {path.name for path in (tmp_path / "sent").iterdir()}
    assert there == {*found.files, SUBMISSION}
    assert {"records.csv", "manifest.json", "pairs.csv", "cost.csv"} <= there
    assert "samples.parquet" not in there
    assert found.documents == len(read_samples(folder))


def test_without_answers_there_is_no_digest_of_them(folder, tmp_path):
    (folder / "samples.parquet").unlink()
    assert write_submission(folder, tmp_path / "sent").answers is None
    assert check_submission(tmp_path / "sent") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda known: known["files"].pop("records.csv"), "must have the digest of records.csv"),
        (lambda known: known["files"].update({"../x": "0" * 64}), "name files of results only"),
        (lambda known: known["files"].update({"cost.csv": "0" * 64}), "cost.csv must be the file"),
        (lambda known: known.update(format=2), "must be a submission: format"),
        (lambda known: known.update(answers="abc"), "must be a submission: answers"),
        (lambda known: known.update(more=1), "must be a submission: more"),
    ],
)
def test_what_was_changed_is_refused(change, message, folder, tmp_path):
    write_submission(folder, tmp_path / "sent")
    path = tmp_path / "sent" / SUBMISSION
    known = json.loads(path.read_text())
    change(known)
    path.write_text(json.dumps(known))
    with pytest.raises(ValueError, match=message):
        check_submission(tmp_path / "sent")


def test_a_file_that_is_gone_is_missed(folder, tmp_path):
    write_submission(folder, tmp_path / "sent")
    (tmp_path / "sent" / "averages.csv").unlink()
    with pytest.raises(ValueError, match=r"averages.csv must be the file that was submitted"):
        check_submission(tmp_path / "sent")


def test_a_folder_is_not_written_over_itself(folder):
    with pytest.raises(ValueError, match="another folder than the results folder"):
        write_submission(folder, folder)
    assert not (folder / SUBMISSION).exists()


def test_the_command_wants_answers_to_check(folder, tmp_path):
    (folder / "samples.parquet").unlink()
    done = CliRunner().invoke(app, ["submit", str(folder), "--out", str(tmp_path / "sent")])
    assert done.exit_code == 2
    assert "must have the answers (samples.parquet)" in done.output
    assert not (tmp_path / "sent").exists()
