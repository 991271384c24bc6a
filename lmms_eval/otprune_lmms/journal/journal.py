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
"""Version of the lines; a folder with lines of another version is an error."""


class Journal:
    """Answers of this and of earlier runs, each found by its `Key`.

    Opening reads every file of the folder. An answer survives the end of the process as soon as it
    is appended, and a loss of power after `flush`. Several processes may write into one folder,
    each into a file of its own; answers of the others are read at the next opening or `refresh`.
    Where several have answered one request, every reader uses the answer of the first file.

    Args:
        folder: created if it does not exist, unless ``readonly``.
        header: description of the run (model fingerprint, versions); written before its first
            answer, and may be changed until then.
        readonly: open for reading only.

    Attributes:
        folder: see above.
        header: see above.
        sessions: headers of all runs that have written into the folder.
        report: counts of what opening found.

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
        """Number of this process among the writing ones; 0 for one that only reads."""
        return 0 if self._writer is None else self._writer.number

    def find(self, key: Key | tuple[str, str]) -> Record | None:
        """Return the answer of a (config fingerprint, request digest); None if there is none."""
        return self._records.get(Key(*key))

    def append(self, *records: Record) -> None:
        """Append answers, with one write.

        Raises:
            JournalError: an answer exists already, the journal is closed or read-only, or the disk
                is full.
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
        """Read what other processes have written since; return the keys of their answers.

        Keys that were answered before are among them. Without new lines this costs one listing of
        the folder. A line that is not complete yet is read at the next call.

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
        """Write everything appended so far to the device (fsync).

        Raises:
            JournalError: the device fails, or the journal is closed or read-only.
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
        """Add a file's answers; return their keys, their number, and the number of unknown lines.

        Of several answers to one request that of the first file is used.
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
    """Return whether a line's content is an answer or a session of this version.

    Raises:
        JournalError: it is of another version, whose digests differ from this version's.
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
    """Return the size of a file; 0 if it is gone, since its writer removes it if it is empty."""
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
