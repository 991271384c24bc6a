"""A folder of finished answers."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from otprune_lmms.journal.faults import Faults
from otprune_lmms.journal.index import Index, LineFiles
from otprune_lmms.journal.lines import PartReader, decode, encode
from otprune_lmms.journal.parts import is_locked, parts
from otprune_lmms.journal.records import JournalError, Key, Record, Report
from otprune_lmms.journal.schema import FORMAT, LineError, OtherFormatError, parse
from otprune_lmms.journal.writer import Writer

logger = logging.getLogger(__name__)


class Journal:
    """Answers of this and of earlier runs, each found by its `Key`.

    Opening reads and checks every file of the folder, and keeps where each answer stands; an answer
    itself is read from its file, and checked again, when it is asked for. That takes about 0.2 KB
    of memory an answer. An answer survives the end of the process as soon as it is appended, and a
    loss of power after `flush`. Several processes may write into one folder, each into a file that
    no other one writes; answers of the others are read at the next opening or `refresh`. Where
    several have answered one request, every reader uses the answer of the first file by name.
    Nothing of a file that exists is ever changed.

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
        JournalError: the folder cannot be read or written, or holds a part that is no regular file
            or of another format.
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
        self.sessions: list[Mapping[str, Any]] = []
        self._index = Index()
        self._files = LineFiles(self.folder)
        self._read: dict[str, tuple[int, int]] = {}
        self._number = 0
        self._begun = False
        self._writer = None if readonly else Writer(self.folder)
        with ExitStack() as stack:
            stack.callback(self.close)
            self.report = self._load()
            stack.pop_all()

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
        return len(self._index)

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the answers, file by file, oldest first within a file."""
        for part in self._index.parts:
            for offset, line in PartReader(self.folder / part):
                if line["kind"] == "answer":
                    record = Record.from_content(line["answer"])
                    if self._index.find(record.key) == (part, offset):
                        yield record

    @property
    def writer(self) -> int:
        """Number of processes that were writing when this one began; 0 for one that only reads."""
        return self._number

    def find(self, key: Key | tuple[str, str]) -> Record | None:
        """Return the answer of a (config fingerprint, request digest); None if there is none.

        An answer that is no longer in its file as it was at the opening counts as none, with a
        warning.

        Raises:
            JournalError: the file cannot be read.
        """
        key = Key(*key)
        place = self._index.find(key)
        if place is None:
            return None
        record = _record(self._files.line(*place))
        if record is None or record.key != key:
            part, offset = place
            logger.warning(
                "%s: the answer at byte %s has changed since the file was read, and is not used",
                *(self.folder / part, offset),
            )
            self._index.drop(key)
            return None
        return record

    def append(self, *records: Record) -> None:
        """Append answers, with one write.

        Raises:
            JournalError: an answer exists already, or cannot be stored (a number that is not
                finite), the journal is closed or read-only, or the disk is full.
        """
        writer = self._open_writer()
        keys = [record.key for record in records]
        for key in keys:
            if key in self._index or keys.count(key) > 1:
                raise JournalError(f"{self.folder} has an answer of request {key.request} already")
        lines = [
            self._encoded({"kind": "answer", "format": FORMAT, "answer": record.plain()})
            for record in records
        ]
        head = b""
        if not self._begun:
            head = self._encoded({"kind": "session", "format": FORMAT, "session": self.header})
        offset = writer.write(b"".join([head, *lines])) + len(head)
        self._begun = True
        for key, line in zip(keys, lines, strict=True):
            self._index.add(key, writer.path.name, offset)
            offset += len(line)

    def refresh(self) -> set[Key]:
        """Read what other processes have written since; return the keys of their answers.

        Keys that were answered before are among them. Without new lines this costs one listing of
        the folder. A line that is not complete yet is read at the next call.

        Raises:
            JournalError: a file cannot be read.
        """
        own = None if self._writer is None else self._writer.path
        found: set[Key] = set()
        for path, size in parts(self.folder):
            start, before = self._read.get(path.name, (0, 0))
            # Not from `before`: a line that was half there, or on its way to this machine.
            if path != own and size > start and size != before:
                reader = PartReader(path, start)
                found.update(key for key, _ in self._take(reader))
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
        self._files.close()
        if writer is not None:
            writer.close()

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise JournalError(f"journal {self.folder} is closed or open for reading only")
        return self._writer

    def _encoded(self, content: dict[str, Any]) -> bytes:
        """Return a line that reads back as what it says."""
        try:
            line = encode(content)
            parse(decode(line) or b"")
        except ValueError as error:
            what = content["kind"]
            raise JournalError(f"{self.folder} cannot store this {what}: {error}") from error
        return line

    def _load(self) -> Report:
        if not self.folder.is_dir():
            raise JournalError(f"journal {self.folder} does not exist")
        own = None if self._writer is None else self._writer.path
        faults, files, repeated = Faults(self.folder), 0, 0
        for path, _ in parts(self.folder):
            files += 1
            if path == own:
                continue
            locked = is_locked(path)
            self._number += own is not None and locked and path.name < own.name
            reader = PartReader(path)
            repeated += sum(not new for _, new in self._take(reader))
            faults.add(reader, locked)
        faults.warn()
        return Report(files, len(self._index), repeated, faults.skipped, faults.torn)

    def _take(self, reader: PartReader) -> Iterator[tuple[Key, bool]]:
        """Add a file's lines; yield the key of each answer, and whether it had none before."""
        name, add = reader.path.name, self._index.add
        for offset, line in reader:
            if line["kind"] == "answer":
                answer = line["answer"]
                key = Key(answer["config"], answer["request"])
                yield key, add(key, name, offset)
            else:
                self.sessions.append(line["session"])
        self._read[name] = (reader.good, reader.size)


def _record(line: bytes) -> Record | None:
    """Return the record of a line; None if the line is none."""
    text = decode(line)
    if text is None:
        return None
    try:
        content = parse(text)
    except (LineError, OtherFormatError):
        return None
    return Record.from_content(content["answer"]) if content["kind"] == "answer" else None
