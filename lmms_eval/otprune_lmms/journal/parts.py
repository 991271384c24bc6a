"""The files of a journal's folder, and which of them a process is writing."""

import errno
import fcntl
import os
import stat
from pathlib import Path

from otprune_lmms.journal.records import JournalError

_PREFIX, _SUFFIX = "part-", ".jsonl"

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A link is not followed, and a pipe that nobody writes into does not block."""

_TRIES = 100
"""How often a lock is tried that a signal interrupts."""


def parts(folder: Path) -> list[tuple[Path, int]]:
    """Return path and size of each part of a journal, by name; none if there is no such folder.

    Raises:
        JournalError: the folder cannot be read, or a part is no regular file of it.
    """
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX):
                    path = folder / entry.name
                    status = _status(entry)
                    if status is not None:
                        _check_regular(path, status.st_mode)
                        found.append((path, status.st_size))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise JournalError(f"journal {folder} cannot be read: {error.strerror}") from error
    return sorted(found)


def _status(entry: "os.DirEntry[str]") -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        # Its writer has removed it, empty.
        return None


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe"}
        raise JournalError(
            f"{path} must be a regular file, as all answers of a journal are, and is "
            f"{kind.get(stat.S_IFMT(mode), 'something else')}: move it away"
        )


def open_part(path: Path) -> int | None:
    """Return a descriptor of a part, open for reading; None if there is none.

    Raises:
        JournalError: it is no regular file.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            _check_regular(path, stat.S_IFLNK)
        raise
    try:
        _check_regular(path, os.fstat(descriptor).st_mode)
    except JournalError:
        os.close(descriptor)
        raise
    return descriptor


def lock(descriptor: int, operation: int) -> bool:
    """Return whether a lock was granted, without waiting; False if another process has it.

    Raises:
        OSError: the file system cannot say.
    """
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except InterruptedError:
            continue
        return True
    raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))


def is_locked(path: Path) -> bool:
    """Return whether a process is known to have a part open for writing.

    False where locks are granted to every process: no answer depends on this.
    """
    try:
        descriptor = os.open(path, _OPEN)
    except OSError:
        return False
    try:
        return not lock(descriptor, fcntl.LOCK_SH)
    except OSError:
        return False
    finally:
        os.close(descriptor)
