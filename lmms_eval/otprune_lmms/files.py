"""Files of results, written whole or not at all."""

import errno
import fcntl
import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

_ABANDONED_AFTER = 3600.0
"""Age in seconds at which a temporary file is taken for one of a killed process and removed."""

LARGEST = 1 << 30
"""Bytes of a file that is read as a whole."""

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class OutputError(OSError):
    """A file or folder that cannot be written; the message names it and the reason."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file that becomes ``path`` when the block ends without an error.

    Until then ``path`` is unchanged, whatever happens; after a loss of power it is the old file or
    the new one. Every call has a temporary file of its own, so several processes may write the same
    path: the last one wins. The folder is made if it does not exist.

    Args:
        path: of the file. The temporary file has the same suffix, which some libraries need.

    Raises:
        OutputError: it could not be written in full (disk full, quota, read-only, no permission).
    """
    temporary = path.with_name(f".{secrets.token_hex(6)}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        _clear(path, temporary.stat().st_mtime)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OutputError: see `atomic_write`.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_file(path: Path, largest: int = LARGEST) -> bytes:
    """Return the content of a regular file, or of one that a link leads to.

    Args:
        path: of the file.
        largest: bytes that it may have.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, is larger, or is no regular file: nobody waits for a pipe.
    """
    descriptor = os.open(path, _READ)
    try:
        status = os.fstat(descriptor)
        check_regular(status.st_mode)
        if status.st_size > largest:
            raise OSError(errno.EFBIG, f"more than {largest} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)


def check_regular(mode: int) -> None:
    """Raise `OSError` unless the mode of a file is that of a regular one."""
    if not stat.S_ISREG(mode):
        kind = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe"}.get(stat.S_IFMT(mode))
        raise OSError(errno.EINVAL, f"no regular file but {kind or 'something else'}")


@contextmanager
def exclusive(folder: Path, *, make: bool = True) -> Iterator[None]:
    """In this context this process alone writes a folder's files; others wait, and say so.

    Nothing is left in the folder: it is locked itself, and the end of the process unlocks it. File
    systems without such locks let everyone in.

    Args:
        folder: of the files.
        make: make the folder if it does not exist; else there is nothing to lock.

    Raises:
        OutputError: the folder cannot be made.
    """
    if not make and not folder.is_dir():
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.warning("%s is being written by another process: waiting for it", folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        logger.warning(
            "%s cannot be locked (%s): let no other process write it now", folder, error.strerror
        )


def is_folder(path: Path) -> bool:
    """Return whether a folder is there; a name that is too long for the disk is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Return whether a file is there; a name that is too long for the disk is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def check_writable(folder: Path) -> None:
    """Raise `OutputError` where a folder can neither be written to nor be made; leaves nothing."""
    place = folder.absolute()
    for one in (place, *place.parents):
        if one.is_symlink() and not one.exists():
            raise OutputError(
                f"{folder} cannot be written: {one} is a link to {os.readlink(one)}, "
                "which does not exist"
            )
    nearest = next(one for one in (place, *place.parents) if one.exists())
    if not nearest.is_dir():
        raise OutputError(f"{folder} cannot be written: {nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        readonly = os.statvfs(nearest).f_flag & os.ST_RDONLY
        raise unwritable(folder, OSError(errno.EROFS if readonly else errno.EACCES, ""))
    try:
        # A disk may refuse what permissions allow: full of files, a quota, a network's server.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(path: Path, error: OSError) -> OutputError:
    """Return an error that names what could not be written, and why."""
    if isinstance(error, OutputError):
        return error
    # From the number: some libraries put a text of their own into the error.
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(f"{path} cannot be written: {reason}")


def _sync(temporary: Path) -> None:
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clear(path: Path, now: float) -> None:
    """Remove temporary files of this path that killed processes have left.

    Args:
        path: of the file.
        now: time of a file that was just made. The clock of the process may be another one than
            that of the disk, or than that of other machines.
    """
    for temporary in path.parent.glob(f".????????????.{path.name}"):
        with suppress(OSError):
            if now - temporary.stat().st_mtime > _ABANDONED_AFTER:
                temporary.unlink()
