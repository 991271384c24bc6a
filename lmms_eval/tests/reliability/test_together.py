"""Several processes on one sweep, at the same time, in one folder."""

import signal

import pytest

from otprune_lmms.journal import Journal

ANSWERS = 72


@pytest.fixture(scope="module")
def whole(forks, tmp_path_factory):
    """What one process alone answers."""
    (said,) = forks.engine(tmp_path_factory.mktemp("alone"))
    return said["answers"]


@pytest.mark.parametrize(("processes", "most"), [(2, 1.6), (4, 2.4)])
def test_the_same_questions_are_shared_out_and_all_answer_alike(
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
    keys = [(cell, request) for one in said for cell, request, _ in one["finished"]]
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
    kept = {(cell, request): text for cell, request, text in killed["finished"]}
    with Journal(tmp_path, readonly=True) as journal:
        assert len(journal) == ANSWERS
        assert all(journal.find(key).text == text for key, text in kept.items())
