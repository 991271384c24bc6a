"""One line: JSON with a checksum over the bytes of what it says."""

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
    """What a file says.

    Attributes:
        entries: content of every line whose checksum holds, in order.
        skipped: numbers, from 1, of other lines that a good line follows.
        good: bytes up to the end of the last good line.
        size: bytes in all.
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
    """Return what a line says; None unless every byte of it is as it was written."""
    if not (line.startswith(_HEAD) and line.endswith(_TAIL)):
        return None
    digest = line[len(_HEAD) : len(_HEAD) + _DIGITS]
    text = line[_START : -len(_TAIL)]
    if line[len(_HEAD) + _DIGITS : _START] != _MIDDLE or _digest(text) != digest:
        return None
    content = json.loads(text)
    return content if isinstance(content, dict) else None


def read(path: Path, start: int = 0) -> Content:
    """Return what a file says, as far as its checksums hold; nothing, if it is gone.

    Args:
        path: of the file.
        start: bytes that were read before, up to the end of a line; lines count from there.

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
        # Its holder removes it if it is empty.
        return Content([], [], start, start)
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}") from error
    return Content(entries, skipped, good, size)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_DIGITS].encode()
