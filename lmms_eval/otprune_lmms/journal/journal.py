"""A folder of finished answers."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from otprune_lmms.journal.lines import Content, encode, read
from otprune_lmms.journal.records import JournalError, Key, Record, Report
from otprune_lmms.journal.writer import Writer, is_locked

logger = logging.getLogger(__name__)

FORMAT = 2
"""Version of the lines; a folder with lines of another version is refused."""


class Journal:
    """Answers of this and of earlier runs, each found by its `Key`.

    Opening reads every file of the folder. What is written survives the end of the process at once,
    and a loss of power from `flush` on. Several processes may write into one folder, each into a
    file of its own; what the others write is seen at the next opening or `refresh`. Where several
    have answered one request, the first file's answer holds, for all who read the folder.

    Args:
        folder: made if it is not there, unless ``readonly``.
        header: what the run is (model fingerprint, versions); written before its first record, and
            may be filled in until then.
        readonly: only look.

    Attributes:
        header: see above.
        report: what opening found.

    Raises:
        JournalError: the folder cannot be read or written.
    """

    def __init__(
        self,
        folder: str | Path,
        header: Mapping[str, Any] | None = None,
        *,
        readonly: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.header: dict[str, Any] = dict(header or {})
        self.sessions: list[dict[str, Any]] = []
        self._records: dict[Key, Record] = {}
        self._part: dict[Key, str] = {}
        self._read: dict[str, int] = {}
        self._begun = False
        self._writer = None if readonly else Writer(self.folder)
        try:
            self.report = self._load()
        except JournalError:
            self.close()
            raise

    def __enter__(self) -> "Journal":
        """Return the journal."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the journal."""
        self.close()

    def __len__(self) -> int:
        """Number of answers."""
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the answers, oldest first within a file."""
        return iter(self._records.values())

    @property
    def writer(self) -> int:
        """Number of this process among those that write; 0 for one that only reads."""
        return 0 if self._writer is None else self._writer.number

    def find(self, key: Key | tuple[str, str]) -> Record | None:
        """Return the answer of a (config, request); None if there is none yet."""
        return self._records.get(Key(*key))

    def append(self, *records: Record) -> None:
        """Write answers, all in one go.

        Raises:
            JournalError: an answer that is there already, a journal that is closed or only read, a
                disk that is full.
        """
        writer = self._open_writer()
        keys = [record.key for record in records]
        for key in keys:
            if key in self._records or keys.count(key) > 1:
                raise JournalError(f"{self.folder} has an answer of request {key.request} already")
        lines = b"".join(
            encode({"kind": "answer", "format": FORMAT, "answer": record.plain()})
            for record in records
        )
        if not self._begun:
            lines = encode({"kind": "session", "format": FORMAT, "session": self.header}) + lines
        writer.write(lines)
        self._begun = True
        self._records.update(zip(keys, records, strict=True))
        self._part.update(dict.fromkeys(keys, writer.path.name))

    def refresh(self) -> set[Key]:
        """Read what other processes have written since; return whose answers came, known or new.

        Cheap where nothing has: one look at the folder. Lines that are not whole yet wait for the
        next time.

        Raises:
            JournalError: a file cannot be read.
        """
        own = None if self._writer is None else self._writer.path
        found: set[Key] = set()
        for path in self._paths():
            start = self._read.get(path.name, 0)
            if path != own and _size(path) > start:
                content = read(path, start)
                self._read[path.name] = content.good
                found |= self._take(content, path.name)[0]
        return found

    def flush(self) -> None:
        """Have everything appended so far survive a loss of power.

        Raises:
            JournalError: the device refuses, or the journal is closed or only read.
        """
        self._open_writer().flush()

    def close(self) -> None:
        """Close and unlock this process's file; answers can still be found."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise JournalError(f"journal {self.folder} is closed or open for reading only")
        return self._writer

    def _load(self) -> Report:
        if not self.folder.is_dir():
            raise JournalError(f"journal {self.folder} does not exist")
        paths = self._paths()
        repeated = skipped = torn = 0
        known: set[Key] = set()
        for path in paths:
            own = self._writer is not None and path == self._writer.path
            locked = not own and is_locked(path)
            content = self._writer.load() if self._writer is not None and own else read(path)
            self._read[path.name] = content.good
            keys, answers, unknown = self._take(content, path.name)
            repeated += answers - len(keys - known)
            known |= keys
            skipped += len(content.skipped) + unknown
            if not locked:
                torn += content.size - content.good
                _warn(path, content, own)
        return Report(len(paths), len(self._records), repeated, skipped, torn)

    def _take(self, content: Content, part: str) -> tuple[set[Key], int, int]:
        """Return whose answers a file has, how many it has, and how many lines say nothing known.

        Of several answers to one request that of the first file holds.
        """
        keys: set[Key] = set()
        answers = unknown = 0
        for entry in content.entries:
            if not is_readable(entry, self.folder / part):
                unknown += 1
            elif entry["kind"] == "session":
                self.sessions.append(entry["session"])
            else:
                record = Record.from_plain(entry["answer"])
                keys.add(record.key)
                answers += 1
                if part < self._part.get(record.key, "~"):
                    self._records[record.key], self._part[record.key] = record, part
        return keys, answers, unknown

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.jsonl"))


def is_readable(entry: Mapping[str, Any], path: Path) -> bool:
    """Return whether a line is an answer or a session of this version.

    Raises:
        JournalError: it is one of another version, whose answers cannot be found again.
    """
    if entry.get("kind") not in ("answer", "session"):
        return False
    found = entry.get("format")
    if found != FORMAT and isinstance(found, int):
        raise JournalError(
            f"{path} holds answers of journal format {found}, this version reads format {FORMAT}: "
            "name another folder with --journal, or move this one away"
        )
    return found == FORMAT


def _size(path: Path) -> int:
    """Return the size of a file, 0 where it is gone: its holder removes it if it is empty."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _warn(path: Path, content: Content, cut: bool) -> None:
    if content.skipped:
        logger.warning("%s: lines %s are damaged and not used", path, _few(content.skipped))
    if content.good < content.size:
        logger.warning(
            "%s: its last %s bytes are no whole line, as after a crash; %s",
            path,
            content.size - content.good,
            "cut off" if cut else "not used",
        )


def _few(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return shown if len(numbers) <= 10 else f"{shown} and {len(numbers) - 10} more"
