"""Checkpoints that come with the package, known by name from any folder."""

from pathlib import Path

EMBEDDED = ("llava-mini",)
"""Their names."""


def embedded_folder(name: str) -> Path | None:
    """Return the folder of an embedded checkpoint; None for any other name."""
    return Path(__file__).parent / name if name in EMBEDDED else None
