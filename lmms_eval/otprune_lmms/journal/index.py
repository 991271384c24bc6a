"""Where each answer of a journal stands, in little memory, and reading it from there."""

import contextlib
import errno
import os
import weakref
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from otprune_lmms.journal.parts import open_part
from otprune_lmms.journal.records import JournalError, Key

_OFFSET_BITS = 44
"""A part has less than 2^44 bytes."""

_OFFSET = (1 << _OFFSET_BITS) - 1

_KEPT_OPEN = 4

_CHUNK = 2048


class Index:
    """Part and offset of each answer, by key: about 0.2 KB of memory an answer.

    Of several answers to one request that of the first part by name counts, and in a part the first
    one.
    """

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._parts: list[str] = []
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        """Number of answers."""
        return len(self._places)

    def __contains__(self, key: Key) -> bool:
        """Whether a key has an answer."""
        return _short(key) in self._places

    def add(self, key: Key, part: str, offset: int) -> bool:
        """Add an answer's place; return whether its key had none."""
        place = self._number(part) << _OFFSET_BITS | offset
        short = _short(key)
        known = self._places.setdefault(short, place)
        if known is place:
            return True
        if part < self._parts[known >> _OFFSET_BITS]:
            self._places[short] = place
        return False

    def _number(self, part: str) -> int:
        number = self._numbers.setdefault(part, len(self._parts))
        if number == len(self._parts):
            self._parts.append(part)
        return number

    def find(self, key: Key) -> tuple[str, int] | None:
        """Return part and offset of a key's answer; None if there is none."""
        place = self._places.get(_short(key))
        return None if place is None else (self._parts[place >> _OFFSET_BITS], place & _OFFSET)

    def drop(self, key: Key) -> None:
        """Forget a key's answer."""
        self._places.pop(_short(key), None)

    @property
    def parts(self) -> list[str]:
        """Names of the parts with answers, sorted."""
        return sorted(self._parts)


def _short(key: Key) -> bytes:
    # 128 bits: two of 10^9 keys are equal with a probability below 10^-20.
    text = "\0".join(key).encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=16).digest()


class LineFiles:
    """Reads single lines; the parts that were read last stay open.

    Args:
        folder: of the parts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, int] = {}
        # A journal that is only read may be dropped without being closed.
        self._end = weakref.finalize(self, _close, self._open)

    def line(self, part: str, offset: int) -> bytes:
        """Return the line that begins at an offset, its newline included; empty if there is none.

        Raises:
            JournalError: the part cannot be read, or is no regular file.
        """
        try:
            descriptor = self._descriptor(part)
            if descriptor is None:
                return b""
            return b"".join(_chunks(descriptor, offset))
        except OSError as error:
            raise JournalError(f"{self.folder / part} cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Close the parts; a later `line` opens one again."""
        _close(self._open)

    def _descriptor(self, part: str) -> int | None:
        known = self._open.pop(part, None)
        if known is None:
            known = self._opened(self.folder / part)
            if known is None:
                return None
            while len(self._open) >= _KEPT_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
        self._open[part] = known
        return known

    def _opened(self, path: Path) -> int | None:
        try:
            return open_part(path)
        except OSError as error:
            if error.errno != errno.EMFILE or not self._open:
                raise
            self.close()
            return open_part(path)


def _chunks(descriptor: int, offset: int) -> Iterator[bytes]:
    size = _CHUNK
    while content := os.pread(descriptor, size, offset):
        end = content.find(b"\n")
        if end >= 0:
            yield content[: end + 1]
            return
        yield content
        offset, size = offset + len(content), min(2 * size, 1 << 20)


def _close(descriptors: dict[str, int]) -> None:
    while descriptors:
        _, descriptor = descriptors.popitem()
        with contextlib.suppress(OSError):
            os.close(descriptor)
