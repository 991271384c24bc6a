"""The format of a line: JSON content with a checksum over its bytes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otprune_lmms.journal.records import JournalError

_DIGITS = 32
_HEAD = b'{"sha256":"'
_MIDDLE = b'","says":'
_TAIL = b"}\n"
_START = len(_HEAD) + _DIGITS + len(_MIDDLE)


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a file.

    Attributes:
        entries: content of every line whose checksum is right, in order.
        skipped: numbers, from 1, of damaged lines that are followed by a good one.
        good: bytes up to the end of the last good line.
        size: bytes of the file.
    """

    entries: list[dict[str, Any]]
    skipped: list[int]
    good: int
    size: int


def encode(content: Mapping[str, Any]) -> bytes:
    """Return a line, its newline included.

    Raises:
        ValueError: NaN or infinity, which JSON cannot say.
    """
    text = json.dumps(content, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    return _HEAD + _digest(text) + _MIDDLE + text + _TAIL


def decode(line: bytes) -> dict[str, Any] | None:
    """Return the content of a line; None unless its checksum is right."""
    if not (line.startswith(_HEAD) and line.endswith(_TAIL)):
        return None
    digest = line[len(_HEAD) : len(_HEAD) + _DIGITS]
    text = line[_START : -len(_TAIL)]
    if line[len(_HEAD) + _DIGITS : _START] != _MIDDLE or _digest(text) != digest:
        return None
    content = json.loads(text)
    return content if isinstance(content, dict) else None


def read(path: Path, start: int = 0) -> Content:
    """Return the content of a file; no entries if it does not exist.

    Args:
        path: of the file.
        start: offset in bytes, at the end of a line; lines are numbered from there.

    Raises:
        JournalError: the file cannot be read.
    """
    entries: list[dict[str, Any]] = []
    bad: list[int] = []
    skipped: list[int] = []
    good = size = start
    try:
        with path.open("rb") as file:
            file.seek(start)
            for number, line in enumerate(file, 1):
                size += len(line)
                content = decode(line)
                if content is None:
                    bad.append(number)
                    continue
                entries.append(content)
                good = size
                skipped += bad
                bad.clear()
    except FileNotFoundError:
        # Its writer removes it if it is empty.
        return Content([], [], start, start)
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}") from error
    return Content(entries, skipped, good, size)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_DIGITS].encode()
