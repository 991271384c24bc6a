"""What is wrong with the files of a journal, gathered for one warning of each kind."""

import logging
from collections.abc import Sequence
from pathlib import Path

from otprune_lmms.journal.lines import PartReader

logger = logging.getLogger(__name__)

_SHOWN = 10


class Faults:
    """Faults of the parts of a folder.

    Args:
        folder: of the parts.

    Attributes:
        skipped: number of whole lines that are not used.
        torn: bytes of incomplete lines at the ends of parts that no process is writing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.skipped = self.torn = 0
        self._damaged: list[str] = []
        self._misfits: list[str] = []
        self._torn: list[str] = []

    def add(self, reader: PartReader, locked: bool) -> None:
        """Add the faults of a part that was read to its end.

        Args:
            reader: what was found.
            locked: whether a process is writing it, so that its last line may not be whole yet.
        """
        name = reader.path.name
        self.skipped += len(reader.damaged) + len(reader.misfits)
        if reader.damaged:
            self._damaged.append(f"{name}: lines {few(list(map(str, reader.damaged)))}")
        for number, fault in reader.misfits:
            self._misfits.append(f"{name}, line {number} ({fault})")
        if reader.whole < reader.size and not locked:
            self.torn += reader.size - reader.whole
            self._torn.append(f"{name}: {reader.size - reader.whole}")

    def warn(self) -> None:
        """Log one warning for each kind of fault that there is."""
        if self._damaged:
            found = few(self._damaged, "; ")
            logger.warning("%s: lines that are damaged and not used: %s", self.folder, found)
        if self._misfits:
            logger.warning(
                "%s: no record of this journal's format, and not used: %s",
                *(self.folder, few(self._misfits, "; ")),
            )
        if self._torn:
            logger.warning(
                "%s: bytes at the end that are no whole line, as after a crash, and not used: %s",
                *(self.folder, few(self._torn)),
            )


def few(names: Sequence[str], between: str = ", ") -> str:
    """Return some names as one text, the first ones only if there are many."""
    shown = between.join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
