"""``cost.json``, ``cost.csv`` and ``cost.md`` of a results folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from otprune_lmms.files import write_text
from otprune_lmms.reporting.cost.page import page
from otprune_lmms.results.columns import TEXTS
from otprune_lmms.results.costs import COLUMNS, Cost

RECORDS, TABLE, PAGE = "cost.json", "cost.csv", "cost.md"
_TEXT = ("model", *TEXTS, "keep_newlines", "convention", "dtype", "attention")
_WHOLE = ("k", "layer", "seed", "batch", "peak_bytes", "added_bytes", "samples", "repeats")


def write_cost(folder: Path, records: Sequence[Cost], origin: Mapping[str, str]) -> None:
    """Write what settings cost, each file whole or not at all.

    Args:
        folder: results of an experiment; made if it is not there.
        records: of `experiments.cost.measuring.measure`; several models and batch sizes may follow
            each other.
        origin: see `experiments.provenance.origin`; has "hardware".

    Raises:
        ValueError: no records.
        OutputError: a file could not be written.
    """
    if not records:
        raise ValueError("records must hold at least one setting, got none")
    lines = [record.plain() for record in records]
    content = {"origin": dict(origin), "records": lines}
    write_text(folder / RECORDS, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / TABLE, _frame(lines).to_csv(index=False))
    write_text(folder / PAGE, page(records, origin))


def read_cost(folder: Path) -> pd.DataFrame:
    """Return the lines of a folder's ``cost.csv``, by `records.COLUMNS`.

    Raises:
        ValueError: there is none, or of another format.
    """
    path = folder / TABLE
    if not path.is_file():
        raise ValueError(f"no costs at {path}; otprune bench measures them")
    # As text first: not every version of pandas reads the last digit of a number right.
    found = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    if tuple(found.columns) != COLUMNS:
        raise ValueError(f"{path} must have the columns {', '.join(COLUMNS)}")
    numbers = [name for name in COLUMNS if name not in _TEXT]
    found = found.astype(dict.fromkeys(numbers, float))
    return found.astype(dict.fromkeys(_WHOLE, "Int64"))


def _frame(lines: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(_WHOLE, "Int64"))
