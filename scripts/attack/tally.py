"""Counts what an attack did and what came of it."""

import contextlib
import json
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from attack.children import Ended

LONGEST_TEXT = 4000
"""Characters that are kept of a fault's description."""


class Tally:
    """Counts and faults of one part of the attack.

    Args:
        part: its name.
        kept: a folder into which the files of faults are copied.
    """

    def __init__(self, part: str, kept: Path) -> None:
        self.part, self.kept = part, kept
        self.counts: Counter[str] = Counter()
        self.faults: list[dict[str, str]] = []
        self._begun = time.monotonic()

    def count(self, name: str, number: int = 1) -> None:
        """Add to a count."""
        self.counts[name] += number

    def kill(self, ended: Ended) -> None:
        """Count a child's kill; a child that did not end as it should is a fault."""
        if ended.killed is not None:
            self.count("kills")
            self.count(f"kills by {signal.Signals(ended.killed).name}")
        if ended.hung:
            self.fault("hang", ended.text)
        elif "Traceback" in ended.text:
            self.fault("traceback", ended.text)
        elif not ended.stopped_well:
            self.fault("wrong status", f"{ended.status} after {ended.killed}: {ended.text}")

    def fault(self, kind: str, what: str, folder: Path | None = None) -> None:
        """Note a fault.

        Args:
            kind: "lost", "repeated", "differing", "traceback", "hang", ...
            what: everything that helps to find it.
            folder: files that are kept with it.
        """
        half = LONGEST_TEXT // 2
        text = what if len(what) <= 2 * half else f"{what[:half]}\n...\n{what[-half:]}"
        self.faults.append({"kind": kind, "what": text})
        sys.stderr.write(f"{self.part}: FAULT {len(self.faults)}: {kind}: {text}\n")
        if folder is not None:
            place = self.kept / f"{self.part}-{len(self.faults)}"
            with contextlib.suppress(shutil.Error):  # pipes, and files that go meanwhile
                shutil.copytree(folder, place, symlinks=True, dirs_exist_ok=True)

    def plain(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return {
            "counts": dict(sorted(self.counts.items())),
            "faults": self.faults,
            "seconds": round(time.monotonic() - self._begun, 1),
        }

    def write(self, path: Path, **others: Any) -> None:
        """Write counts and faults, with further entries before them, into a JSON file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(others | self.plain(), indent=1, ensure_ascii=False) + "\n")
