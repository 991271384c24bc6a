"""What stays in memory: nothing of a run when it has ended, and little of an answer."""

import ctypes
import gc
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import environment
from journal_records import part, record
from otprune_lmms.journal import Journal
from otprune_lmms.journal.lines import decode
from runs import run, source_of, write_experiment
from suites import make_suite

ROUNDS, SETTLED = 24, 8
"""Runs in one process, and after how many of them caches of libraries are filled."""


def resident() -> int:
    """Memory of this process in bytes, without what the allocator only keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in one]
    return 1024 * int(line.split()[1])


@pytest.mark.long
def test_nothing_stays_of_a_run(tmp_path):
    """Sixty runs grew by a tenth: freed memory that the allocator kept, and no object."""
    make_suite(tmp_path / "suite", ["gqa"])
    source = source_of(write_experiment(tmp_path, ["gqa"], "./suite/tasks"))
    bytes_after, objects_after = [], []
    for number in range(ROUNDS):
        run(source, tmp_path / f"journal {number}", tmp_path / "out")
        bytes_after.append(resident())
        objects_after.append(len(gc.get_objects()))
    assert max(objects_after[SETTLED:]) - objects_after[SETTLED] < 200
    # The least of several runs: single ones leave the allocator's pools fuller.
    early, late = min(bytes_after[SETTLED : SETTLED + 6]), min(bytes_after[-6:])
    assert late - early < 2 << 20, bytes_after


ANSWERS = 200_000

OPENED = """
import gc, json, sys, time
from pathlib import Path
from otprune_lmms.cluster.state import read_state
from otprune_lmms.journal import Journal

def resident():
    (line,) = [one for one in open("/proc/self/status") if "VmRSS" in one]
    return 1024 * int(line.split()[1])

folder = Path(sys.argv[2])
opened = {"journal": lambda: Journal(folder, readonly=True), "state": lambda: read_state([folder])}
before, begin = resident(), time.process_time()
kept = opened[sys.argv[1]]()
seconds = time.process_time() - begin
gc.collect()
print(json.dumps([resident() - before, seconds]))
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A journal of many answers."""
    folder = tmp_path_factory.mktemp("many")

    def answers(start: int) -> Iterator:
        for number in range(start, start + 1000):
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            config = hashlib.sha256(str(number % 40).encode()).hexdigest()
            yield record(number, config=config, request=digest, text="yes")

    with Journal(folder) as journal:
        for start in range(0, ANSWERS, 1000):
            journal.append(*answers(start))
    return folder


@pytest.mark.long
@pytest.mark.parametrize("reader", ["journal", "state"])
def test_many_answers_are_opened_in_little_memory_and_time(many, reader):
    """0.3 KB an answer at most; no more than 2.5 times as long as the plain reading of the lines.

    Plain reading is JSON and checksum of each line, without any check of what it says; 200 000
    answers take less than 2 s where it takes 0.9 s.
    """
    begin = time.process_time()
    with part(many).open("rb") as file:
        plain = sum(bool(json.loads(decode(line) or b"0")) for line in file)
    seconds = time.process_time() - begin
    assert plain == ANSWERS + 1
    done = subprocess.run(
        [sys.executable, "-c", OPENED, reader, str(many)],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    taken, needed = json.loads(done.stdout)
    assert taken / ANSWERS < 300
    assert needed < 2.5 * seconds
