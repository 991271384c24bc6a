"""kill -9 at any moment: no finished answer is lost, none is given twice."""

import random
import signal

import pytest

from otprune_lmms.journal import Journal

LONGEST = 0.35
"""Seconds of processor time after which a process is killed at the latest; it needs 0.7 in all."""


@pytest.fixture(scope="module")
def whole(forks, tmp_path_factory):
    """A run that nobody disturbs."""
    (said,) = forks.engine(tmp_path_factory.mktemp("whole"))
    assert said["died"] == 0
    assert len(said["finished"]) == said["counts"]["generated"] == len(said["answers"]) == 72
    return said


def check(folder, finished) -> None:
    """What was reported as finished is in the journal, word for word, and each answer once."""
    with Journal(folder, readonly=True) as journal:
        assert journal.report.repeated == journal.report.skipped == 0
        for (config, request), text in finished.items():
            record = journal.find((config, request))
            assert record is not None
            assert record.text == text


def disturbed(forks, folder, moments) -> tuple[int, dict]:
    """Begin again and again, each time killed at the next moment; return kills, last words."""
    finished: dict[tuple[str, str], str] = {}
    kills = 0
    for moment in moments:
        (said,) = forks.engine(folder, **moment)
        assert said["died"] in (0, signal.SIGKILL), said
        for config, request, text in said["finished"]:
            assert (config, request) not in finished, "answered twice"
            finished[config, request] = text
        kills += said["died"] == signal.SIGKILL
        check(folder, finished)
        if said["died"] == 0:
            return kills, said
    (said,) = forks.engine(folder)
    assert said["died"] == 0
    return kills, said


def moments(draw: random.Random):
    """Any moment of a run, and the middle of writing a line."""
    while True:
        if draw.random() < 0.7:
            yield {"cpu": [draw.uniform(0, LONGEST)]}
        else:
            yield {"torn": [draw.randrange(1, 6), draw.randrange(0, 1200)]}


@pytest.mark.parametrize("number", [12, pytest.param(200, marks=pytest.mark.long)])
def test_killed_at_any_moment(forks, whole, tmp_path, number):
    draw, kills, runs = random.Random(20260220 + number), 0, 0
    while kills < number:
        runs += 1
        folder = tmp_path / str(runs)
        more, said = disturbed(forks, folder, moments(draw))
        kills += more
        assert said["answers"] == whole["answers"]
        counts = said["counts"]
        assert counts["generated"] + counts["reused"] == counts["requests"] == 72
        with Journal(folder, readonly=True) as journal:
            assert len(journal) == 72
            assert journal.report.repeated == journal.report.skipped == 0
    assert runs < number / 3, "most kills hit a run that had answers to lose"
