"""The format of a line, JSON content with a checksum over its bytes; reads files of lines."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from otprune_lmms.journal.parts import open_part
from otprune_lmms.journal.records import JournalError
from otprune_lmms.journal.schema import FORMAT, Line, LineError, OtherFormatError, parse

_DIGITS = 32
_HEAD = b'{"sha256":"'
_MIDDLE = b'","says":'
_TAIL = b"}\n"
_TAIL_CRLF = b"}\r\n"
_START = len(_HEAD) + _DIGITS + len(_MIDDLE)


def encode(content: Mapping[str, Any], *, sort: bool = True) -> bytes:
    """Return a line, its newline included.

    Args:
        content: of the line.
        sort: sort its keys; else they stay in their order.

    Raises:
        ValueError: NaN or infinity, which JSON cannot say.
    """
    separators = (",", ":")
    text = json.dumps(content, separators=separators, sort_keys=sort, allow_nan=False).encode()
    return _HEAD + _digest(text) + _MIDDLE + text + _TAIL


def decode(line: bytes) -> bytes | None:
    """Return the content of a line, as JSON; None unless its checksum is right.

    A line may end with CR LF, as after a transfer that changes the ends of lines.
    """
    if line.endswith(_TAIL):
        text = line[_START:-2]
    elif line.endswith(_TAIL_CRLF):
        text = line[_START:-3]
    else:
        return None
    # One comparison of all that stands before the content.
    return text if line[:_START] == _HEAD + _digest(text) + _MIDDLE else None


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_DIGITS].encode()


class PartReader:
    """Iterates over the good lines of a part, as (offset in bytes, content).

    The attributes say what was found up to the line that was yielded last.

    Args:
        path: of the part; no lines if it does not exist, since its writer removes it if it is
            empty.
        start: offset in bytes at the beginning of a line; lines are numbered from there, from 1.

    Attributes:
        good: offset of the end of the last good line.
        whole: offset behind the last newline.
        size: offset of the end.
        damaged: numbers of the whole lines whose checksum is wrong.
        misfits: number and fault of the lines whose checksum is right and whose content is no
            answer and no session.

    Raises:
        JournalError: the part cannot be read, is no regular file, or has lines of another format;
            raised while iterating.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path, self._start = path, start
        self.good = self.whole = self.size = start
        self.damaged: list[int] = []
        self.misfits: list[tuple[int, str]] = []

    def __iter__(self) -> Iterator[tuple[int, Line]]:
        """Read the part from the start."""
        try:
            descriptor = open_part(self.path)
            if descriptor is None:
                return
            with os.fdopen(descriptor, "rb") as file:
                file.seek(self._start)
                for number, line in enumerate(file, 1):
                    offset = self.size
                    self.size += len(line)
                    if not line.endswith(b"\n"):
                        return
                    self.whole = self.size
                    content = self._content(number, line)
                    if content is not None:
                        self.good = self.size
                        yield offset, content
        except OSError as error:
            raise JournalError(f"{self.path} cannot be read: {error.strerror}") from error

    def _content(self, number: int, line: bytes) -> Line | None:
        text = decode(line)
        if text is None:
            self.damaged.append(number)
            return None
        try:
            return parse(text)
        except OtherFormatError as error:
            raise JournalError(
                f"{self.path}, line {number}: an answer of journal format {error.found}, and this "
                f"version reads format {FORMAT}: name another folder with --journal, or move this "
                "one away"
            ) from None
        except LineError as error:
            self.misfits.append((number, str(error)))
            return None
