"""The attack finds nothing here, and finds faults where there are some."""

import json
import logging
import os
import random
import subprocess

import pytest
from attack import journal_kills, page
from attack.bad_inputs import fault_of
from attack.children import Ended, Kill, run
from attack.doors.case import Case
from attack.tally import Tally

from helpers import ROOT
from otprune_lmms.journal.writer import Writer


@pytest.fixture
def tally(tmp_path, monkeypatch):
    # Of commands that other tests have run; children would write to what is closed by now.
    monkeypatch.setattr(logging.root, "handlers", [])
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


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (2, "error: try.yaml: name must be a text", ""),
        (2, "error: try.\n│ yaml is none", ""),
        (2, "error: something is wrong", "unnamed"),
        (0, "try.yaml", "accepted"),
        (1, "Traceback (most recent call last):\nKeyError: try.yaml", "traceback"),
        (-11, "try.yaml", "ended by SIGSEGV"),
    ],
)
def test_a_bad_input_must_be_refused_in_words_that_name_it(status, text, kind):
    case = Case("a fault", lambda say: None, ("try.yaml",))
    assert fault_of(case, Ended([], status, text, None, False, 1.0)) == kind


def test_the_page_has_the_figures_that_were_measured():
    text = page.PAGE.read_text()
    parts = page.read()
    assert page.page(text, parts) == text, "python -m attack.page makes it again"
    assert sum(part["counts"].get("kills", 0) for part in parts.values()) >= 2000
    found = {fault["kind"] for part in parts.values() for fault in part["faults"]}
    assert not found - {"accepted", "unnamed"}, "of bad inputs; the page says what became of these"


@pytest.mark.long
@pytest.mark.parametrize("part", ["engine", "scoring", "results", "inputs"])
def test_a_small_round_of_each_part_finds_nothing(part, tmp_path):
    words = ["bash", "scripts/attack.sh", part, "--share", "0.03", "--output", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads((tmp_path / f"{part}.json").read_text())["counts"]
    assert counts["inputs" if part == "inputs" else "kills"] >= 3
