"""Tidy records of an experiment: ``records.csv``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from otprune_lmms.results.checked import Column, Kind, check_frame, read_csv
from otprune_lmms.results.columns import SETTING, SETTING_COLUMNS

RECORDS = "records.csv"

Convention = Literal["2ndm", "3ndm"]
"""How multiply-adds are counted, see `otprune.cost`."""

CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

COLUMNS = [
    "experiment",
    "suite",
    "model",
    *SETTING,
    "task",
    "metric",
    "value",
    "missing",
    "documents",
    "kept_tokens",
    "visual_tokens",
    "layer_tokens",
    *(f"multiply_adds_{convention}" for convention in CONVENTIONS),
    "truncated",
    "cached_tokens",
]
"""Columns of the records: one line for each model, setting, task and metric.

``value`` is empty where ``missing`` gives a reason. ``kept_tokens`` (after the last pruning),
``visual_tokens`` (before any) and ``layer_tokens`` (that enter a layer of the language model, mean
over its layers) are means over the images of the task. ``multiply_adds_2ndm`` and
``multiply_adds_3ndm`` are those of the prefill of a mean prompt of the task, by the two formulas of
`otprune.cost`. ``truncated`` is the number of documents with a prompt that was cut, being longer
than the model takes. ``cached_tokens`` are the text and visual tokens of a mean prompt in the
key-value cache of a layer after the prefill, mean over the layers. The columns of a setting are those of `results.columns`.
"""

_EARLIER = (COLUMNS[:-1], COLUMNS[:-2])
"""Columns of earlier versions, without cached tokens, and without prompts that were cut."""

UNPRUNED = "unpruned"
"""``row`` of the unpruned model."""

_TEXT, _NUMBER = Column(Kind.TEXT), Column(Kind.NUMBER, empty=True)

_COLUMNS = {
    **dict.fromkeys(("experiment", "suite", "model", "task", "metric"), _TEXT),
    **SETTING_COLUMNS,
    "missing": Column(Kind.TEXT, empty=True),
    "documents": Column(Kind.WHOLE),
    "truncated": Column(Kind.WHOLE, empty=True),
    **dict.fromkeys(("kept_tokens", "visual_tokens", "layer_tokens", "cached_tokens"), _NUMBER),
    **{f"multiply_adds_{convention}": _NUMBER for convention in CONVENTIONS},
}
"""What each column must hold, but for ``value``."""

_AS_READ = {
    **{name: column._replace(needed=False) for name, column in _COLUMNS.items()},
    # As text first: some versions of pandas misread the last digit of a number.
    "value": Column(Kind.TEXT, empty=True, needed=False),
}

_PLACE = ["model", "setting", "task", "metric"]


def records_frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return records as a frame with all columns, in their order."""
    return pd.DataFrame(records, columns=COLUMNS)


def read_records(path: Path) -> pd.DataFrame:
    """Return the records of a ``records.csv``.

    Raises:
        ValueError: no such file, no CSV, other columns than ours, or a value that is no number.
    """
    if not path.is_file():
        raise ValueError(f"no records at {path}")
    records = read_csv(path, _AS_READ)
    if list(records.columns) in _EARLIER:
        filled = {"truncated": 0, "cached_tokens": float("nan")}
        records = records.assign(**{k: v for k, v in filled.items() if k not in records})
    if list(records.columns) != COLUMNS:
        raise ValueError(f"{path} must have the columns {', '.join(COLUMNS)}")
    try:
        records = records.astype({"value": float})
    except ValueError as error:
        raise ValueError(f"{path}: value must be a number or empty: {error}") from error
    check_frame(path, records, {"value": _NUMBER})
    twice = records[_PLACE].duplicated()
    if twice.any():
        named = ", ".join(map(str, records.loc[twice.idxmax(), _PLACE]))
        raise ValueError(f"{path} has several lines of one metric: {named}")
    return records


def documents_of(records: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return the largest number of documents of each model and task, in order of appearance."""
    found: dict[str, dict[str, int]] = {}
    counts = records[["model", "task", "documents"]].drop_duplicates()
    for model, task, count in counts.itertuples(index=False, name=None):
        own = found.setdefault(str(model), {})
        own[str(task)] = max(own.get(str(task), 0), int(count))
    return found
