"""The one file of a journal that this process writes."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

from otprune_lmms.journal.parts import lock
from otprune_lmms.journal.records import JournalError

_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC

_LONGEST_HOST = 60

_PATIENCE = 5.0
"""Seconds for which a reader may hold up the lock of a new file; it takes it for a moment only."""


class Writer:
    """A new file, ``part-TIME-HOST-PROCESS-TOKEN.jsonl``, appended to and locked while it is open.

    No process ever writes into a file that another one has made, so an answer is safe where locks
    are granted to every process (some network file systems). The lock only tells others that the
    file is being written.

    Raises:
        JournalError: the folder cannot be created or written to, or its file system has no locks.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"journal {folder} cannot be made: {error.strerror}") from error
        self.path = folder / _new_name()
        try:
            self._descriptor = os.open(self.path, _NEW, 0o644)
        except OSError as error:
            raise self._unwritable(error) from error
        self._size = 0
        try:
            self._lock()
        except JournalError:
            with contextlib.suppress(JournalError):
                self.close()
            raise

    def write(self, lines: bytes) -> int:
        """Append lines; from now on they survive the end of this process.

        Returns:
            The offset in bytes at which they begin.

        Raises:
            JournalError: they could not be written in full (disk full, quota); the file then ends
                where it did before.
        """
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise self._unwritable(error) from error
        self._size = end
        return end - len(lines)

    def flush(self) -> None:
        """Write all lines to the device (fsync), so that they survive a loss of power.

        Raises:
            JournalError: the device fails.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Close the file, which unlocks it; an empty one is removed.

        Raises:
            JournalError: earlier lines did not reach the disk (full, on a network).
        """
        with contextlib.suppress(OSError):
            if os.fstat(self._descriptor).st_size == 0:
                self.path.unlink()
        try:
            os.close(self._descriptor)
        except OSError as error:
            raise self._unwritable(error) from error

    def _lock(self) -> None:
        end = time.monotonic() + _PATIENCE
        try:
            while not lock(self._descriptor, fcntl.LOCK_EX):
                if time.monotonic() > end:
                    raise JournalError(f"{self.path} cannot be locked: another process has it")
                time.sleep(0.01)
        except OSError as error:
            reason = "is on a file system without locks"
            if error.errno not in _UNSUPPORTED:
                reason = "cannot be locked"
            raise JournalError(f"{self.path} {reason}: {error.strerror}") from error

    def _unwritable(self, error: OSError) -> JournalError:
        return JournalError(f"{self.path} cannot be written: {error.strerror}")


def _new_name() -> str:
    """Return a name that no other process uses; names sort by time, as far as clocks agree."""
    host = re.sub(r"[^A-Za-z0-9.]", "_", gethostname())[:_LONGEST_HOST] or "host"
    when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    return f"part-{when}-{host}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
