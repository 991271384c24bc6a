"""All answers of an experiment with their shares of the score: ``samples.parquet``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from otprune_lmms.files import atomic_write
from otprune_lmms.results.checked import Column, Kind, parquet_columns, read_parquet
from otprune_lmms.results.columns import SETTING_COLUMNS, SETTING_TYPES

SAMPLES = "samples.parquet"

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        *((name, pa.type_for_alias(kind)) for name, kind in SETTING_TYPES.items()),
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("cluster", pa.string()),
        ("prompt", pa.string()),
        ("target", pa.string()),
        ("requests", pa.list_(pa.string())),
        ("answers", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("value", pa.float64()),
        ("detail", pa.string()),
        ("kept", pa.int64()),
        ("candidates", pa.int64()),
        ("new_tokens", pa.int64()),
        ("truncated", pa.int64()),
        ("unfinished", pa.bool_()),
        ("options", pa.list_(pa.string())),
        ("probabilities", pa.list_(pa.float64())),
        ("right_option", pa.int64()),
    ]
)
"""Columns: one row for each model, setting (`results.columns`), task and document.

``cluster`` is a hash of the document's images, so documents of the same images have the same; a
document without an image has a cluster of its own. ``requests`` are the hashes under which the
journal keeps the answers. ``answers`` are the model's texts, ``answer`` is the text that was
scored; answers of a loglikelihood task are JSON. ``value`` and ``detail`` are the document's share
of the task's headline metric (`benchmarks.Share`), the latter as JSON. ``kept`` and
``candidates`` count visual tokens over all images of the document, after the last pruning and
before any. ``truncated`` is how many positions of the
document's longest prompt were cut off. ``unfinished`` is whether an answer ended because it had the
most tokens allowed, empty where none is a text or an earlier version answered. ``options`` are
those of a question that asks to choose, ``probabilities`` those of each in the model
(`experiments.option_questions`), ``right_option`` is the index of the right one; all three are empty
without ``--calibration``.
"""

_OPTIONS = ("options", "probabilities", "right_option")

_LATER: Mapping[str, Any] = {"truncated": 0, "unfinished": None, **dict.fromkeys(_OPTIONS)}
"""Columns that files of earlier versions lack, and what they would hold; these had ``seconds``."""

COLUMNS = tuple(SCHEMA.names)

_COLUMNS = {
    **dict.fromkeys(("model", "task", "cluster", "prompt", "target", "answer"), Column(Kind.TEXT)),
    **SETTING_COLUMNS,
    **dict.fromkeys(("doc_id", "kept", "candidates", "new_tokens"), Column(Kind.WHOLE)),
    **dict.fromkeys(("requests", "answers"), Column(Kind.TEXTS)),
    "value": Column(Kind.NUMBER, empty=True),
    "detail": Column(Kind.OBJECT),
    "truncated": Column(Kind.WHOLE),
    "unfinished": Column(Kind.FLAG, empty=True),
    "options": Column(Kind.TEXTS, empty=True),
    "probabilities": Column(Kind.NUMBERS, empty=True),
    "right_option": Column(Kind.WHOLE, empty=True),
}
"""What each column must hold."""

_PLACE = ["model", "setting", "task", "doc_id"]


def write_samples(path: Path, parts: Sequence[Mapping[str, Sequence[Any]]]) -> None:
    """Write samples, whole or not at all.

    Args:
        path: of the file.
        parts: columns, one mapping for each model, setting and task; others than ours are left out.
    """
    with atomic_write(path) as place, pq.ParquetWriter(place, SCHEMA, compression="zstd") as writer:
        for part in parts:
            writer.write_table(pa.Table.from_pydict(dict(part), schema=SCHEMA))


def read_samples(
    folder: Path, columns: Sequence[str] | None = None, filters: Any = None
) -> pd.DataFrame:
    """Return the samples of a results folder.

    Args:
        folder: of the results.
        columns: columns to read; None for all, which large runs may not fit into memory.
        filters: which rows to read, as an expression of ``pyarrow.compute``.

    Raises:
        ValueError: there are none, or of another format.
    """
    path = folder / SAMPLES
    if not path.is_file():
        raise ValueError(f"no samples at {path}")
    names = parquet_columns(path)
    known = [one for one in COLUMNS if one in names or one not in _LATER]
    if [one for one in names if one != "seconds"] != known:
        raise ValueError(f"{path} must have the columns {', '.join(COLUMNS)}")
    wanted = COLUMNS if columns is None else tuple(columns)
    frame = read_parquet(path, _COLUMNS, [one for one in wanted if one in names], filters)
    frame = frame.assign(**{n: v for n, v in _LATER.items() if n in wanted and n not in names})
    frame = frame[list(wanted)]
    if {"requests", "answers"} <= set(wanted):
        uneven = frame["requests"].str.len() != frame["answers"].str.len()
        if uneven.any():
            raise ValueError(f"{path} has a line with more requests than answers, or fewer")
    if set(_OPTIONS) <= set(names) & set(wanted):
        known = frame[frame["right_option"].notna()]
        counts, right = known["options"].str.len(), known["right_option"]
        if not ((counts == known["probabilities"].str.len()) & right.between(0, counts - 1)).all():
            raise ValueError(f"{path} has a line with other probabilities than options")
    if set(_PLACE) <= set(wanted) and frame.duplicated(_PLACE).any():
        raise ValueError(f"{path} has several lines of one document, setting, model and task")
    return frame


def detail(text: str) -> dict[str, str]:
    """Return a sample's ``detail``."""
    return json.loads(text)
