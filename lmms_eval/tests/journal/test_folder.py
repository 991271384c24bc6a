"""Locks, links and limits: what stands around the answers costs none, and is said in a sentence."""

import errno
import fcntl
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers import environment
from journal_records import numbers, part, record, write
from otprune_lmms.cluster.state import read_state
from otprune_lmms.journal import Journal, JournalError
from otprune_lmms.journal import parts as parts_module


def locks(monkeypatch, flock) -> None:
    """Let the journal, and nothing else, lock in another way."""
    own = SimpleNamespace(**{n: getattr(fcntl, n) for n in ("LOCK_EX", "LOCK_SH", "LOCK_NB")})
    own.flock = flock
    monkeypatch.setattr(parts_module, "fcntl", own)


def refusing(number: int, times: int = 1 << 30):
    """A lock that fails so many times."""
    left = [times]

    def flock(descriptor: int, operation: int) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        fcntl.flock(descriptor, operation)

    return flock


def test_locks_that_are_granted_to_everyone_lose_no_answer(tmp_path, monkeypatch):
    # As on NFS with nolock or Lustre with localflock, seen by processes of several machines.
    locks(monkeypatch, lambda *_: None)
    draw, answered, sizes = random.Random(5), set(), {}
    journals: list[Journal] = []
    for number in range(150):
        if len(journals) < 3 or draw.random() < 0.1:
            journals.append(Journal(tmp_path))
        writing = draw.choice(journals)
        writing.append(record(number))
        answered.add(number)
        found = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
        assert all(found[name] >= size for name, size in sizes.items()), "a file has been cut"
        sizes = {name: size for name, size in found.items() if size}
        if draw.random() < 0.2:
            journals.remove(writing)
            writing.close()
    with Journal(tmp_path, readonly=True) as journal:
        assert {one.doc_id for one in journal} == answered
        assert (journal.report.skipped, journal.report.repeated) == (0, 0)
    for journal in journals:
        journal.close()
    assert numbers(tmp_path) == sorted(answered)


def test_no_process_writes_into_or_removes_what_another_has_made(tmp_path, monkeypatch):
    locks(monkeypatch, lambda *_: None)
    with Journal(tmp_path) as one:
        empty = part(tmp_path)
        with Journal(tmp_path) as other:
            other.append(record(1))
        assert empty.exists(), "its writer has not begun yet"
        one.append(record(2))
        torn = part(tmp_path).read_bytes()[:-9]
        part(tmp_path).write_bytes(torn)
        write(tmp_path, 3)
        assert part(tmp_path).read_bytes() == torn
    assert numbers(tmp_path) == [1, 3]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EIO, "cannot be locked: Input/output error"),
        (errno.EACCES, "cannot be locked: Permission denied"),
        (errno.EINTR, "cannot be locked: Interrupted system call"),
        (errno.ENOLCK, "is on a file system without locks: No locks available"),
    ],
)
def test_a_lock_that_fails_is_one_sentence_and_leaves_no_file(
    tmp_path, monkeypatch, number, message
):
    write(tmp_path, 1)
    locks(monkeypatch, refusing(number))
    with pytest.raises(JournalError, match=rf"part-.*\.jsonl {message}$"):
        Journal(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert numbers(tmp_path) == [1], "reading needs no lock"


def test_a_lock_that_a_signal_interrupts_is_tried_again(tmp_path, monkeypatch):
    locks(monkeypatch, refusing(errno.EINTR, 3))
    write(tmp_path, 1)
    assert numbers(tmp_path) == [1]


def test_a_part_that_is_no_regular_file_is_refused_and_left_as_it_is(tmp_path):
    foreign = tmp_path / "foreign"
    foreign.write_text("not ours\n\nnor this")
    for number, (make, kind) in enumerate(
        (
            (lambda path: path.symlink_to(foreign), "a link"),
            (lambda path: path.symlink_to(tmp_path / "nowhere"), "a link"),
            (os.mkfifo, "a pipe"),
            (os.mkdir, "a folder"),
        )
    ):
        folder = tmp_path / str(number)
        write(folder, 1)
        path = folder / "part-000.jsonl"
        make(path)
        for opened in (Journal, lambda at: Journal(at, readonly=True), lambda at: read_state([at])):
            with pytest.raises(JournalError, match=rf"{path} must be a regular file.* is {kind}"):
                opened(folder)
        assert len(list(folder.iterdir())) == 2
    assert foreign.read_text() == "not ours\n\nnor this"


def test_a_link_in_the_place_of_a_read_part_is_not_followed(tmp_path):
    write(tmp_path, 1)
    with Journal(tmp_path, readonly=True) as journal:
        path = part(tmp_path)
        path.rename(tmp_path / "aside")
        path.symlink_to("aside")
        with pytest.raises(JournalError, match="is a link"):
            journal.find(record(1).key)
        with pytest.raises(JournalError, match="is a link"):
            journal.refresh()


def test_an_answer_that_changes_after_it_was_read_is_answered_again(tmp_path, caplog):
    write(tmp_path, 1, 2)
    with Journal(tmp_path) as journal:
        path = part(tmp_path)
        path.write_bytes(path.read_bytes().replace(b"answer 1", b"answer 7"))
        assert journal.find(record(1).key) is None
        assert "has changed since" in caplog.text
        assert journal.find(record(2).key) == record(2)
        journal.append(record(1))
        assert journal.find(record(1).key) == record(1)
        path.unlink()
        part(tmp_path).touch()
    assert numbers(tmp_path) == [1]


FEW_FILES = """
import gc, os, resource, sys
from pathlib import Path

from journal_records import numbers, record, write
from otprune_lmms.cluster.state import read_state
from otprune_lmms.journal import Journal, JournalError

def descriptors():
    return sorted(map(int, os.listdir("/proc/self/fd")))  # and the one of this listing

def all_left():
    found = []
    try:
        while True:
            found.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return found

def refused(opened, *arguments):
    try:
        opened(*arguments)
    except JournalError as error:
        assert "Too many open files" in str(error), error
    else:
        raise AssertionError(f"{opened} was not refused")

folder = Path(sys.argv[1])
before = descriptors()
resource.setrlimit(resource.RLIMIT_NOFILE, (before[-1] + 3, before[-1] + 3))
for number in range(12):
    write(folder, number)
with Journal(folder, readonly=True) as journal:
    for number in range(12):
        assert journal.find(record(number).key) == record(number)
    taken = all_left()
    refused(journal.refresh)
taken += all_left()
for opened in (Journal, lambda at: Journal(at, readonly=True), lambda at: read_state([at])):
    refused(opened, folder)
for descriptor in taken:
    os.close(descriptor)
assert numbers(folder) == list(range(12))
dropped = Journal(folder, readonly=True)
assert dropped.find(record(3).key) == record(3)
del dropped
gc.collect()
assert descriptors() == before, "the journal has left files open"
"""


def test_few_open_files_are_enough_for_many_parts_and_too_few_are_a_sentence(tmp_path):
    # In a process of its own: what else this one opens and closes would count as well.
    done = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(tmp_path)],
        env=environment(PYTHONPATH=str(Path(__file__).parents[1])),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
