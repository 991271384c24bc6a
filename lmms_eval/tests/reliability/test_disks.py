"""A full or a read-only disk ends a run with one sentence; nothing finished is lost."""

import json

import pandas as pd
import pytest

from broken_suites import experiment, rows
from otprune_lmms.journal import Journal

QUIET = ("--quiet",)
DOCUMENTS = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of an experiment: 24 answers."""
    folder = tmp_path_factory.mktemp("made")
    configs = {"methods": ["random"], "keep_ratios": [0.02], "controls": False}
    experiment(folder, {"pope": rows("pope", DOCUMENTS, {})}, pruning=configs)
    return folder


@pytest.fixture(scope="module")
def want(forks, made):
    """Records of a run on a large disk."""
    said = forks.command(made, "run", "try.yaml", *QUIET)
    assert said["status"] == 0, said["text"]
    return pd.read_csv(made / "outputs" / "try" / "records.csv")


def disk(folder, *options: str):
    """A disk in memory, seen by the processes of one test only."""
    return [[["-t", "tmpfs", "-o", ",".join(options), "tmpfs"], str(folder)]]


def resized(folder, size: str):
    return [[["-o", f"remount,rw,size={size}"], str(folder)]]


def written(said) -> int:
    """Bytes of answers that a run has left."""
    return sum(size for name, size in said["left"].items() if name.startswith("part-"))


def one_sentence(said, *parts: str) -> None:
    """Check how a run has ended."""
    assert said["status"] == 1, said["text"]
    (line,) = [line for line in said["text"].splitlines() if line.startswith("error: ")]
    for part in parts:
        assert part in line
    assert "Traceback" not in said["text"]


def counts(folder) -> dict:
    content = json.loads((folder / "manifest.json").read_text())
    return content["runs"][-1]["counts"]["tiny"]


def test_a_disk_that_fills_while_answers_are_written(mounts, made, want, tmp_path):
    journal, outputs = tmp_path / "journal", tmp_path / "outputs"
    output = outputs / "try"
    command = ("run", "try.yaml", "--journal", journal, "--output-dir", outputs, *QUIET)
    said = mounts.command(made, *command, mounts=disk(journal, "size=12k"), look=str(journal))
    one_sentence(said, f"{journal}/part-", ".jsonl cannot be written: No space left on device")
    assert not outputs.exists()
    size = written(said)
    assert 0 < size < 12288
    said = mounts.command(made, *command, mounts=resized(journal, "1m"), look=str(journal))
    assert said["status"] == 0, said["text"]
    assert written(said) > size
    done = counts(output)
    assert done["reused"] > 3, "what was finished is found"
    assert done["reused"] + done["generated"] == 2 * DOCUMENTS
    pd.testing.assert_frame_equal(pd.read_csv(output / "records.csv"), want)


def test_a_disk_that_fills_while_results_are_written(mounts, made, want, tmp_path):
    journal, outputs = tmp_path / "journal", tmp_path / "outputs"
    output = outputs / "try"
    command = ("run", "try.yaml", "--journal", journal, "--output-dir", outputs, *QUIET)
    said = mounts.command(made, *command, mounts=disk(output, "size=4k"), look=str(output))
    one_sentence(said, f"{output}/", " cannot be written: No space left on device")
    assert set(said["left"]) <= {"records.csv"}, "whole files, or none"
    with Journal(journal, readonly=True) as opened:
        assert len(opened) == 2 * DOCUMENTS
    said = mounts.command(made, *command, mounts=resized(output, "9m"), look=str(output))
    assert said["status"] == 0, said["text"]
    assert {"records.csv", "samples.parquet", "manifest.json", "table.md"} <= set(said["left"])


def test_a_disk_that_fills_while_scores_are_kept(mounts, made, want, tmp_path):
    journal, outputs = tmp_path / "journal", tmp_path / "outputs"
    scores = journal / "scores"
    command = ("run", "try.yaml", "--journal", journal, "--output-dir", outputs, *QUIET)
    # A file takes a page, a folder none.
    said = mounts.command(made, *command, mounts=disk(scores, "size=4k"), look=str(scores))
    one_sentence(said, f"{scores}/", ".json cannot be written: No space left on device")
    assert not any(name.startswith(".") for name in said["left"])
    assert not outputs.exists()
    with Journal(journal, readonly=True) as opened:
        assert len(opened) == 2 * DOCUMENTS


@pytest.mark.parametrize("which", ["journal", "output"])
def test_a_read_only_folder_is_found_before_anything_is_loaded(mounts, made, tmp_path, which):
    folders = {"journal": tmp_path / "journal", "output": tmp_path / "outputs"}
    command = ("--journal", folders["journal"], "--output-dir", folders["output"], *QUIET)
    locked = folders[which] / "deep"
    at = {"journal": ("--journal", locked), "output": ("--output-dir", locked)}[which]
    said = mounts.command(made, "run", "try.yaml", *command, *at, mounts=disk(folders[which], "ro"))
    where = locked / "try" if which == "output" else locked
    one_sentence(said, f"{where} cannot be written: Read-only file system")
    assert not list(folders["journal"].glob("part-*"))


def test_a_limit_on_files_keeps_whole_lines(forks, tmp_path):
    """The same without mounts: the write comes back short, then fails."""
    (whole,) = forks.engine(tmp_path / "whole")
    (said,) = forks.engine(tmp_path / "full", disk=12_000)
    assert said["error"].startswith("JournalError: ")
    (part,) = (tmp_path / "full").glob("part-*.jsonl")
    assert said["error"].endswith(f"{part.name} cannot be written: File too large")
    content = part.read_bytes()
    assert content.endswith(b"\n")
    assert len(content) <= 12_000
    with Journal(tmp_path / "full", readonly=True) as journal:
        assert journal.report.torn == journal.report.skipped == 0
        kept = {(one.config, one.request): one.text for one in journal}
    assert kept == {(config, request): text for config, request, text in said["finished"]}
    assert kept
    (again,) = forks.engine(tmp_path / "full")
    assert again["answers"] == whole["answers"]
    assert again["counts"]["generated"] == 72 - len(kept)
