"""The attack finds nothing here, and finds faults where there are some."""

import random

import pytest
from attack import journal_kills
from attack.children import Kill, run
from attack.tally import Tally

from otprune_lmms.journal.writer import Writer


@pytest.fixture
def tally(tmp_path):
    return Tally("part", tmp_path / "kept")


def kinds(tally: Tally) -> set[str]:
    return {fault["kind"] for fault in tally.faults}


def test_killed_journals_lose_nothing(tally, tmp_path):
    journal_kills.attack(random.Random(1), 12, tmp_path, tally)
    assert tally.faults == []
    assert tally.counts["kills"] >= 12
    assert tally.counts["answers checked"] >= journal_kills.ANSWERS


def test_a_journal_that_loses_answers_is_found(tally, tmp_path, monkeypatch):
    write = Writer.write

    def lose(self, lines):
        return write(self, lines[: len(lines) // 2])

    monkeypatch.setattr(Writer, "write", lose)
    journal_kills.attack(random.Random(1), 3, tmp_path, tally)
    assert {"lost", "lines"} <= kinds(tally)
    assert any((tmp_path / "kept").iterdir()), "its files are kept"


def test_a_child_that_hangs_or_fails_is_found(tally):
    def hang(say):
        say("here")
        while True:
            pass

    tally.kill(run(hang, deadline=0.1))
    tally.kill(run(lambda say: 1 / 0))
    assert kinds(tally) == {"hang", "traceback"}
    assert "ZeroDivisionError" in tally.faults[1]["what"]
    ended = run(hang, Kill(9, 0.0, words=1))
    assert (ended.status, ended.said) == (-9, ["here"])
    tally.kill(ended)
    assert len(tally.faults) == 2
