"""The pages of tables, written as soon as there is a row: who is stopped loses none."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from otprune_lmms import provenance

from bench_common import write_tables

PACKAGES = ("torch", "transformers", "triton", "flash_attn")


def versions() -> list[dict[str, str]]:
    """Return a row for each package that decides a time, and the toolkit of torch's build."""
    rows = []
    for package in PACKAGES:
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "none"
        rows.append({"package": package, "version": found})
    return [*rows, {"package": "CUDA of torch", "version": str(torch.version.cuda)}]


class Page:
    """Tables by their headings, with where they come from.

    Args:
        path: of the files, without their ending.
        title: what the tables are about.
        command: the command that makes them.
        device: "cuda" or "cpu".
        notes: sentences below the tables.
    """

    def __init__(self, path: Path, title: str, command: str, device: str, notes: list[str]) -> None:
        self.path, self.title, self.notes = path, title, notes
        self.origin = provenance.origin(command, device)
        self.tables: dict[str, list[dict[str, Any]]] = {"Versions": versions()}

    def add(self, heading: str, rows: list[dict[str, Any]]) -> None:
        """Add rows to the table of a heading, and write the page."""
        if rows:
            self.tables.setdefault(heading, []).extend(rows)
        self.text = write_tables(self.path, self.title, self.origin, self.tables, self.notes)
