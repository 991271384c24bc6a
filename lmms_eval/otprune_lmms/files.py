"""Files of results: there whole, or not at all."""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LEFT_BEHIND = 3600.0
"""Seconds after which a file of a process that was killed while it wrote is removed."""


class OutputError(OSError):
    """A file or folder that cannot be written; the message names it and the reason."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a place to write a file to; it becomes ``path`` when the block ends without an error.

    Until then ``path`` is what it was, whatever happens; after it, a loss of power leaves the old
    file or the new one. The place has a name of its own for every call, so that several processes
    may write one file: the last one stays. Its folder is made if it is not there.

    Args:
        path: of the file; the place ends like it, for libraries that go by the ending.

    Raises:
        OutputError: it could not be written in full (disk full, quota, read-only, no permission).
    """
    place = path.with_name(f".{secrets.token_hex(6)}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        yield place
        _sync(place)
        os.replace(place, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            place.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OutputError: see `atomic_write`.
    """
    with atomic_write(path) as place:
        place.write_text(text, encoding="utf-8")


def check_writable(folder: Path) -> None:
    """Raise `OutputError` where a folder can neither be written to nor be made; writes nothing."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir():
        raise OutputError(f"{folder} cannot be written: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        readonly = os.statvfs(there).f_flag & os.ST_RDONLY
        raise unwritable(folder, OSError(errno.EROFS if readonly else errno.EACCES, ""))


def unwritable(path: Path, error: OSError) -> OutputError:
    """Return an error that names what could not be written, and why."""
    if isinstance(error, OutputError):
        return error
    # By its number: libraries put texts of their own beside it.
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(f"{path} cannot be written: {reason}")


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clear(path: Path) -> None:
    """Remove what processes that were killed have left of this file."""
    for left in path.parent.glob(f".????????????.{path.name}"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND:
                left.unlink()
