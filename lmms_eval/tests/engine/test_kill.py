"""Killed at any moment, a run goes on where it was: nothing lost, nothing done twice."""

import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from helpers import PICTURES, environment, loaded, request, wait_until
from otprune_lmms.cells import Cell
from otprune_lmms.engine import Engine
from otprune_lmms.journal import Journal

CELLS = [Cell.make("otprune", 0.098), Cell.make("random", 0.2)]


def requests():
    return [request(i, f"What is number {i}?", (PICTURES[i % 4],)) for i in range(24)]


def engine(journal=None) -> Engine:
    return Engine(
        loaded(), model_name="tiny", batch_size=3, workers=1, journal=journal, progress=False
    )


def killed(folder: Path, answers: int) -> None:
    """Run in another process and kill it once the journal has grown by so many answers."""
    code = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from test_kill import CELLS, Journal, engine, requests
        with Journal({str(folder)!r}) as journal:
            engine(journal).run(requests(), CELLS)
        """
    )
    before = lines(folder)
    with subprocess.Popen([sys.executable, "-c", code], env=environment()) as running:
        wait_until(lambda: lines(folder) > before + answers or running.poll() is not None)
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL, "it was still at work"


def lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("part-*.jsonl"))


def test_kill_9_at_several_moments_loses_nothing_and_nothing_is_done_twice(tmp_path):
    draw = random.Random(4)
    done = 0
    for _ in range(2):
        killed(tmp_path, draw.randrange(1, 15))
        with Journal(tmp_path, readonly=True) as journal:
            assert len(journal) > done
            assert journal.report.repeated == journal.report.skipped == 0
            done = len(journal)
    want = engine().run(requests(), CELLS)
    with Journal(tmp_path) as journal:
        found = engine(journal).run(requests(), CELLS)
    assert found.counts.reused == done
    assert found.counts.generated == len(want) - done
    for cell, one in want:
        before, after = want[cell, one], found[cell, one]
        assert (before.text, before.kept) == (after.text, after.kept)
    with Journal(tmp_path, readonly=True) as journal:
        assert len(journal) == len(want)
        assert journal.report.repeated == 0
        assert journal.report.files == 1
