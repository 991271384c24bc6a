"""Files of a results folder that are of earlier numbers: removed before new numbers are written."""

import shutil
from collections.abc import Iterable
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
