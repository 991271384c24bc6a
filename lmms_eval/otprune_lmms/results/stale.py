"""Files of a results folder that are of earlier numbers: removed before new numbers are written."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def remove(folder: Path, names: Iterable[str]) -> list[str]:
    """Remove files and folders of a results folder; return the names of those that were there.

    Args:
        folder: of the results.
        names: of files or folders; with ``*`` for any part of a name.

    Raises:
        OSError: one cannot be removed.
    """
    found: list[str] = []
    for name in names:
        for path in sorted(folder.glob(name)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            found.append(str(path.relative_to(folder)))
    return found


REPORT = "report.html"
"""The page that has tables and figures in it."""

_IN_REPORT = ("table.html", "figures/*.png")


@contextmanager
def without_stale_report(folder: Path) -> Iterator[list[str]]:
    """Remove the report of a results folder if its tables or figures change in the block.

    Yields:
        Names of what was removed; filled when the block ends.

    Raises:
        OSError: a file cannot be read, or the report cannot be removed.
    """
    before, removed = _content(folder), list[str]()
    yield removed
    if _content(folder) != before:
        removed += remove(folder, [REPORT])


def _content(folder: Path) -> dict[str, bytes]:
    found = (path for name in _IN_REPORT for path in folder.glob(name))
    return {path.name: hashlib.sha256(path.read_bytes()).digest() for path in found}
