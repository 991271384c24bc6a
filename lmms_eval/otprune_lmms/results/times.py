"""Measured times of a results folder, apart from all else: no other file of results has any.

Times differ from run to run. With them apart, all other files but ``manifest.json`` are equal byte
for byte for equal inputs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from otprune_lmms.files import atomic_write
from otprune_lmms.results.checked import Column, Kind, read_parquet
from otprune_lmms.results.frames import Frame

ANSWER_SECONDS, SELECTION_SECONDS = "answer_seconds.parquet", "selection_seconds.parquet"

_PLACE = [("model", pa.string()), ("setting", pa.string()), ("task", pa.string())]

ANSWERS = pa.schema([*_PLACE, ("doc_id", pa.int64()), ("seconds", pa.float64())])
"""Columns of ``answer_seconds.parquet``: one row for each sample, with the time that the language
model took for its answers."""

SELECTIONS = pa.schema([*ANSWERS, ("image", pa.int64())])
"""Columns of ``selection_seconds.parquet``: one row for each line of the diagnostics, with the time
of one selection."""

_SELECTIONS = {
    **dict.fromkeys(("model", "setting", "task"), Column(Kind.TEXT)),
    **dict.fromkeys(("doc_id", "image"), Column(Kind.WHOLE)),
    "seconds": Column(Kind.NUMBER, empty=True),
}
"""What each column must hold."""


def write_answer_seconds(folder: Path, parts: Sequence[Mapping[str, Sequence[Any]]]) -> None:
    """Write the times of answers into a results folder.

    Args:
        folder: of the results.
        parts: columns, one mapping for each model, setting and task; others than ours are left out.

    Raises:
        OutputError: the file cannot be written.
    """
    path = folder / ANSWER_SECONDS
    with atomic_write(path) as place, pq.ParquetWriter(place, ANSWERS) as writer:
        for part in parts:
            writer.write_table(pa.Table.from_pydict(dict(part), schema=ANSWERS))


def write_selection_seconds(folder: Path, measured: Frame) -> None:
    """Write the times of selections into a results folder.

    Args:
        folder: of the results.
        measured: lines of diagnostics, with ``seconds``.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(folder / SELECTION_SECONDS) as place:
        measured[SELECTIONS.names].to_parquet(place, index=False, schema=SELECTIONS)


def read_selection_seconds(folder: Path) -> pd.DataFrame | None:
    """Return the times of selections; None where none were measured.

    Raises:
        ValueError: no Parquet, or other columns than ours.
    """
    path = folder / SELECTION_SECONDS
    if not path.is_file():
        return None
    found = read_parquet(path, _SELECTIONS)
    if found.duplicated(["model", "setting", "task", "doc_id", "image"]).any():
        raise ValueError(f"{path} has several lines of one image, document, setting and model")
    return found
