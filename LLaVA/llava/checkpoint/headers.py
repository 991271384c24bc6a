"""The header of a safetensors file, checked before the file is mapped."""

from pathlib import Path
from typing import Any

from llava.checkpoint.json_files import parse_object

_LARGEST = 100_000_000
"""Bytes of a header; the format's own limit."""


def check_header(path: Path) -> None:
    """Check that every tensor's bytes lie in the file, and that no two tensors share bytes.

    The library that reads the file checks sizes and dtypes, but takes tensors that overlap.

    Raises:
        CheckpointError: a header that is no JSON object or has a key twice.
        ValueError: it is too long, or a tensor has no place of its own.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        rest = path.stat().st_size - 8
        if not 0 < length <= min(rest, _LARGEST):
            raise ValueError(f"its header cannot have {length} bytes")
        header = parse_object(file.read(length), "its header")
    places = [_place(name, one) for name, one in header.items() if name != "__metadata__"]
    end = 0
    for first, last, name in sorted(places):
        if first < end or last > rest - length:
            raise ValueError(
                f"{name[:80]} has bytes {first} to {last}, which are another tensor's or beyond "
                "the end"
            )
        end = last


def _place(name: str, entry: Any) -> tuple[int, int, str]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or [type(one) for one in offsets] != [int, int]:
        raise ValueError(f"{name[:80]} must have two data_offsets")
    first, last = offsets
    if not 0 <= first <= last:
        raise ValueError(f"{name[:80]} must have data_offsets in order, got {offsets}")
    return first, last, name
