"""Tidy records of an experiment: ``records.csv``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

RECORDS = "records.csv"

COLUMNS = [
    "experiment",
    "suite",
    "model",
    "cell",
    "method",
    "keep_ratio",
    "k",
    "layer",
    "seed",
    "row",
    "task",
    "metric",
    "value",
    "missing",
    "documents",
    "kept_tokens",
    "visual_tokens",
]
"""Columns of the records: one line for each model, cell, task and metric.

``row`` names the table's row: the cell without its seed. ``value`` is empty where ``missing`` says
why. ``kept_tokens`` and ``visual_tokens`` are means over the images of the task.
"""

UNPRUNED = "unpruned"
"""``row`` of the model that prunes nothing."""

_TEXT = (
    "experiment",
    "suite",
    "model",
    "cell",
    "method",
    "row",
    "task",
    "metric",
    "missing",
    # As text first: not every version of pandas reads the last digit of a number right.
    "value",
)


def frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return records as a frame with all columns, in their order."""
    return pd.DataFrame(records, columns=COLUMNS)


def read_records(path: Path) -> pd.DataFrame:
    """Return the records of a ``records.csv``.

    Raises:
        ValueError: no such file, no CSV, other columns than ours, or a value that is no number.
    """
    if not path.is_file():
        raise ValueError(f"no records at {path}")
    try:
        # Names stay names: a model may be called 7, or NA.
        records = pd.read_csv(
            path, dtype=dict.fromkeys(_TEXT, "str"), keep_default_na=False, na_values=[""]
        )
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if list(records.columns) != COLUMNS:
        raise ValueError(f"{path} must have the columns {', '.join(COLUMNS)}")
    try:
        return records.astype({"value": float})
    except ValueError as error:
        raise ValueError(f"{path}: value must be a number or empty: {error}") from error


def documents_of(records: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return the largest number of documents of each model and task, in order of appearance."""
    found: dict[str, dict[str, int]] = {}
    counts = records[["model", "task", "documents"]].drop_duplicates()
    for model, task, count in counts.itertuples(index=False, name=None):
        own = found.setdefault(str(model), {})
        own[str(task)] = max(own.get(str(task), 0), int(count))
    return found
