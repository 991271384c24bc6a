"""Several processes on one sweep, at the same time, in one folder."""

import json
import signal

import pandas as pd
import pytest

from broken_suites import experiment, rows
from otprune_lmms.journal import Journal

ANSWERS = 72


@pytest.fixture(scope="module")
def whole(forks, tmp_path_factory):
    """What one process alone answers."""
    (said,) = forks.engine(tmp_path_factory.mktemp("alone"))
    return said["answers"]


@pytest.mark.parametrize(("processes", "most"), [(2, 1.6), (4, 2.4)])
def test_the_same_requests_are_shared_out_and_all_answer_alike(
    forks, whole, tmp_path, processes, most
):
    said = forks.engine(tmp_path, processes=processes)
    assert [one["died"] for one in said] == [0] * processes
    assert all(one["answers"] == whole for one in said)
    done = [one["counts"]["generated"] for one in said]
    assert [len(one["finished"]) for one in said] == done
    assert all(one["counts"]["generated"] + one["counts"]["reused"] == ANSWERS for one in said)
    assert sum(done) < most * ANSWERS
    with Journal(tmp_path, readonly=True) as journal:
        assert len(journal) == ANSWERS
        assert journal.report.repeated == sum(done) - ANSWERS, "counted, and of no account"
        assert journal.report.files <= processes


def test_processes_with_a_share_each_answer_nothing_twice(forks, whole, tmp_path):
    said = forks.engine(tmp_path, processes=3, share=True)
    keys = [(config, request) for one in said for config, request, _ in one["finished"]]
    assert len(keys) == len(set(keys)) == ANSWERS
    with Journal(tmp_path, readonly=True) as journal:
        assert (len(journal), journal.report.repeated) == (ANSWERS, 0)
    (last,) = forks.engine(tmp_path)
    assert last["counts"]["generated"] == 0
    assert last["answers"] == whole


def test_when_one_is_killed_the_other_does_its_work(forks, whole, tmp_path):
    killed, other = forks.engine(tmp_path, processes=2, cpu=[0.2])
    assert (killed["died"], other["died"]) == (signal.SIGKILL, 0)
    assert other["answers"] == whole
    kept = {(config, request): text for config, request, text in killed["finished"]}
    with Journal(tmp_path, readonly=True) as journal:
        assert len(journal) == ANSWERS
        assert all(journal.find(key).text == text for key, text in kept.items())


def test_two_commands_at_once_write_one_folder(forks, tmp_path):
    experiment(tmp_path, {"pope": rows("pope", 8, {3: b"no picture"})})
    command = ["run", "try.yaml", "--quiet"]
    said = forks.run(do="command", folder=tmp_path, arguments=command, processes=2)
    assert [one["status"] for one in said] == [0, 0], said
    results, log = tmp_path / "outputs" / "try", tmp_path / "logs" / "answers"
    content = json.loads((results / "manifest.json").read_text())
    assert [one["doc_id"] for one in content["failed"]] == [3]
    assert set(pd.read_csv(results / "records.csv")["documents"]) == {7}
    assert not [one for one in tmp_path.rglob(".*")], "no half-written file is left"
    with Journal(log, readonly=True) as journal:
        assert len(journal) == 7
    before = (results / "records.csv").read_bytes()
    assert forks.command(tmp_path, *command)["status"] == 0
    assert (results / "records.csv").read_bytes() == before
