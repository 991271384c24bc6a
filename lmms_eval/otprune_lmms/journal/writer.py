"""The one file of a journal that this process writes."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from otprune_lmms.journal.lines import Content, read
from otprune_lmms.journal.records import JournalError

_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


class Writer:
    """An append-only file, locked while it is open.

    It is the first ``part-NNN.jsonl`` of the folder that no process has locked, so a journal has as
    many files as it had writers at one time.

    Raises:
        JournalError: the folder cannot be created or written to, or its file system has no locks.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"journal {folder} cannot be made: {error.strerror}") from error
        self.path, self._descriptor = _first_free(folder)
        self._size = 0

    @property
    def number(self) -> int:
        """Number of the file."""
        return int(self.path.stem.removeprefix("part-"))

    def load(self) -> Content:
        """Return the file's content, after cutting off an incomplete end."""
        content = read(self.path)
        if content.good < content.size:
            try:
                os.ftruncate(self._descriptor, content.good)
            except OSError as error:
                raise JournalError(f"{self.path} cannot be cut: {error.strerror}") from error
        self._size = content.good
        return content

    def write(self, lines: bytes) -> None:
        """Append lines; from now on they survive the end of this process.

        Raises:
            JournalError: they could not be written in full (disk full, quota); the file then ends
                where it did before.
        """
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise JournalError(f"{self.path} cannot be written: {error.strerror}") from error
        self._size += len(lines)

    def flush(self) -> None:
        """Write all lines to the device (fsync), so that they survive a loss of power.

        Raises:
            JournalError: the device fails.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file, which unlocks it; an empty one is removed.

        Raises:
            JournalError: earlier lines did not reach the disk (full, on a network).
        """
        with contextlib.suppress(OSError):
            # By its real size: a file that could not be read may hold answers.
            if os.fstat(self._descriptor).st_size == 0:
                self.path.unlink()
        try:
            os.close(self._descriptor)
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written: {error.strerror}") from error


def _first_free(folder: Path) -> tuple[Path, int]:
    number = 0
    while True:
        path = folder / f"part-{number:03d}.jsonl"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise JournalError(f"{path} cannot be written: {error.strerror}") from error
        if _lock(descriptor, path) and _still_there(descriptor, path):
            return path, descriptor
        os.close(descriptor)
        number += 1


def _lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            os.close(descriptor)
            raise JournalError(
                f"{path} is on a file system without locks: {error.strerror}"
            ) from error
        return False
    return True


def _still_there(descriptor: int, path: Path) -> bool:
    # Its last writer may have removed it, empty, between our opening and our locking.
    try:
        return os.stat(path).st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Return whether a process has a journal's file open for writing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _UNSUPPORTED
    finally:
        os.close(descriptor)
    return False
