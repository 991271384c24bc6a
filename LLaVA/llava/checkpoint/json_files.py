"""JSON and texts of a checkpoint, read without trust: bounded, each key once."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from llava.checkpoint.errors import CheckpointError

_LARGEST = 1 << 27
"""Bytes: index files of the largest models and CLIP's vocabulary have a few MB."""

_POINTER = b"version https://git-lfs.github.com/spec/"


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        CheckpointError: unreadable, no JSON, no object, a key twice, nested too deeply, too large.
    """
    return parse_object(_read(path), str(path))


def read_text(path: Path) -> str:
    """Return the text in a UTF-8 file.

    Raises:
        CheckpointError: unreadable, no UTF-8, too large.
    """
    try:
        return _read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is no UTF-8 text: {error}") from None


def _read(path: Path) -> bytes:
    refuse_pointer(path)
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise CheckpointError(f"{path} must have at most {_LARGEST} bytes, got {size}")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None


def parse_object(content: bytes, name: str) -> dict[str, Any]:
    """Return a JSON object from its bytes; ``name`` is what messages call it.

    Raises:
        CheckpointError: no JSON, no object, a key twice, nested too deeply.
    """
    try:
        found = json.loads(content.decode("utf-8"), object_pairs_hook=_each_key_once)
        # Half a surrogate pair, which JSON can escape, is no text: libraries fail on it later.
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise CheckpointError(f"{name} is nested too deeply for a JSON file") from None
    except ValueError as error:
        raise CheckpointError(f"{name} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{name} must hold a JSON object, got {type(found).__name__}")
    return found


def refuse_pointer(path: Path) -> None:
    """Refuse a file that only says where Git LFS has the real one.

    Raises:
        CheckpointError: it is such a file, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    if start == _POINTER:
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the file itself: fetch it with git lfs pull"
        )


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {twice[:80]!r} is given twice")
    return found
