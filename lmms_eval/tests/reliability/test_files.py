"""Files are there whole or not at all, whoever else writes and whatever the disk does."""

import os
import random
import re
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from helpers import wait_until
from otprune_lmms import files
from otprune_lmms.files import OutputError, atomic_write, check_writable, exclusive, write_text
from otprune_lmms.results.samples import SCHEMA, write_samples


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "table.md"
    for text in ("one", "two é\u2028\n"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
        assert os.listdir(path.parent) == ["table.md"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("error", [KeyError("no"), OSError(28, "No space left on device")])
def test_when_writing_fails_the_file_is_as_it_was(tmp_path, error):
    path = tmp_path / "table.png"
    path.write_bytes(b"before")
    kind = OutputError if isinstance(error, OSError) else KeyError
    # PT012: the block must raise after it has written half of the file.
    with pytest.raises(kind) as caught, atomic_write(path) as place:  # noqa: PT012
        assert place.suffix == ".png", "libraries go by it"
        place.write_bytes(b"half")
        raise error
    if kind is OutputError:
        assert str(caught.value) == f"{path} cannot be written: No space left on device"
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["table.png"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "results" / "table.md"
    for write in (lambda: write_text(path, "x"), lambda: write_samples(path, [])):
        with pytest.raises(OutputError, match=f"^{re.escape(str(path))} cannot be written: Not a"):
            write()
    with pytest.raises(OutputError, match=r"results cannot be written: .*file is no folder"):
        check_writable(path.parent)
    check_writable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists(), "looking makes nothing"


def test_a_link_to_nowhere_is_named_before_anything_is_loaded(tmp_path):
    link = tmp_path / "results"
    link.symlink_to(tmp_path / "unmounted" / "disk")
    for folder in (link, link / "try"):
        with pytest.raises(OutputError, match=r"results is a link to .*disk, which does not exist"):
            check_writable(folder)


def test_a_disk_that_refuses_is_found_before_anything_is_loaded(tmp_path, monkeypatch):
    """Permissions say nothing about a quota or a network's server, and root has all of them."""

    def full(**_):
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", full)
    with pytest.raises(OutputError, match=r"new cannot be written: Disk quota exceeded"):
        check_writable(tmp_path / "new")


def test_one_process_at_a_time_writes_a_folder(tmp_path, caplog):
    order, folder = [], tmp_path / "results" / "try"

    def write():
        with exclusive(folder):
            order.append("second")

    other = threading.Thread(target=write)
    with exclusive(folder):
        other.start()
        wait_until(lambda: caplog.messages, 10)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    assert caplog.messages == [f"{folder} is being written by another process: waiting for it"]
    assert os.listdir(folder) == [], "a lock leaves nothing"


def test_a_disk_without_locks_lets_everyone_in_and_says_so(tmp_path, monkeypatch, caplog):
    def refuses(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", refuses)
    with exclusive(tmp_path), exclusive(tmp_path):
        pass
    assert "cannot be locked (Operation not supported)" in caplog.messages[0]


def test_a_clock_a_day_ahead_takes_no_file_away(tmp_path, monkeypatch):
    """Whether a file was left by a killed process is a matter of the disk's clock alone."""
    path = tmp_path / "table.md"
    half = tmp_path / f".{1:012x}.table.md"
    half.write_text("another process is at work")
    monkeypatch.setattr(time, "time", lambda: half.stat().st_mtime + 86400)
    write_text(path, "one")
    assert half.exists()


def test_many_threads_writing_one_file_leave_one_of_their_texts(tmp_path):
    path, texts = tmp_path / "table.md", [str(n) * 5000 for n in range(8)]
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            if path.exists():
                seen.add(path.read_text())

    def write(text):
        for _ in range(10):
            write_text(path, text)

    watching = threading.Thread(target=read)
    writing = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in (watching, *writing):
        thread.start()
    for thread in writing:
        thread.join()
    stop.set()
    watching.join()
    assert seen <= set(texts)
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["table.md"]


def test_what_a_killed_process_left_is_removed_once_it_is_old(tmp_path):
    path = tmp_path / "table.md"
    left = [tmp_path / f".{n:012x}.{name}" for n, name in enumerate(("table.md", "other.md"))]
    for one in left:
        one.write_text("half")
    write_text(path, "one")
    assert all(one.exists() for one in left), "its writer may be at work"
    for one in left:
        os.utime(one, (0, 0))
    write_text(path, "two")
    assert [one.exists() for one in left] == [False, True]


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from otprune_lmms import files

    path, steps = Path(sys.argv[1]), int(sys.argv[2])

    class Os:
        def __getattr__(self, name):
            global steps
            steps -= 1
            if steps < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return getattr(os, name)

    files.os = Os()
    while True:
        with files.atomic_write(path) as place:
            place.write_text("new" * 3000)
    """
)


def test_killed_at_any_step_the_old_file_or_the_new_one_is_there(tmp_path):
    path, found = tmp_path / "table.md", set()
    for steps in range(7):
        path.write_text("old")
        subprocess.run([sys.executable, "-c", KILLED, path, str(steps)], check=False)
        found.add(path.read_text())
    assert found == {"old", "new" * 3000}


FULL = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from otprune_lmms.files import OutputError, write_text

    folder = Path(sys.argv[1])
    write_text(folder / "table.md", "before")
    for name in ("table.md", "new.md"):
        try:
            write_text(folder / name, "x" * 200_000)
        except OutputError as error:
            print(error)
    print([(one.name, one.read_text()) for one in folder.iterdir()])
    """
)


def alone(forks, size: str, folder: Path, code: str) -> list[str]:
    """Run code in a process with a small disk of its own."""
    if not forks.mounts:
        pytest.skip("no mounts in a namespace of one's own here")
    shell = f'mount -t tmpfs -o size={size} tmpfs "$1" && exec "$0" -c "$2" "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", shell]
        + [sys.executable, str(folder), code],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_full_disk_costs_neither_the_old_file_nor_leaves_half_a_new_one(forks, tmp_path):
    said = alone(forks, "64k", tmp_path, FULL)
    assert said == [
        f"{tmp_path}/table.md cannot be written: No space left on device",
        f"{tmp_path}/new.md cannot be written: No space left on device",
        "[('table.md', 'before')]",
    ]


def test_samples_are_written_whole_too(tmp_path, monkeypatch):
    path = tmp_path / "samples.parquet"
    draw = random.Random(2)
    columns = {name: [None] * 50 for name in SCHEMA.names}
    columns |= {"answer": [f"{draw.random()}" for _ in range(50)]}
    write_samples(path, [columns])
    before = path.read_bytes()
    assert len(pd.read_parquet(path)) == 50

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError, match="samples.parquet cannot be written: No space left"):
        write_samples(path, [columns, columns])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["samples.parquet"]
