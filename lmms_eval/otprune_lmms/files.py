"""Files of results, written whole or not at all."""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ABANDONED_AFTER = 3600.0
"""Age in seconds at which a temporary file is taken for one of a killed process and removed."""


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
        _clear(path)
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


def check_writable(folder: Path) -> None:
    """Raise `OutputError` where a folder can neither be written to nor be made; writes nothing."""
    nearest = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not nearest.is_dir():
        raise OutputError(f"{folder} cannot be written: {nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        readonly = os.statvfs(nearest).f_flag & os.ST_RDONLY
        raise unwritable(folder, OSError(errno.EROFS if readonly else errno.EACCES, ""))


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


def _clear(path: Path) -> None:
    """Remove temporary files of this path that killed processes have left."""
    for temporary in path.parent.glob(f".????????????.{path.name}"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > _ABANDONED_AFTER:
                temporary.unlink()
