"""Tables of a results folder as files: read, and held against what their columns must be.

A file may have been damaged, made by another version or edited. What passes here has the columns
and types that readers count on; all else is one sentence that names the file.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from otprune_lmms.files import check_regular
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.kinds import Column, Kind

_LARGEST = 2**53
"""Whole numbers beyond it are not the same as floats."""


class _MisfitError(ValueError):
    """A column that is not what it must be; the message has no file."""


_READING = (pa.ArrowException, OSError, ValueError, OverflowError, NotImplementedError)
"""What Arrow and pandas raise for files that they cannot read."""


def read_csv(path: Path, columns: Mapping[str, Column]) -> Frame:
    """Return a CSV file.

    Text columns are read as text, whatever it looks like, and nothing but an empty field counts as
    empty: a model may be called 7, or NA.

    Args:
        path: of the file.
        columns: what columns must be; the file may have others.

    Raises:
        ValueError: no such file, no CSV, or a column that is missing or not what it must be.
    """
    texts = (Kind.TEXT, Kind.OBJECT)
    types: Any = {name: "str" for name, column in columns.items() if column.kind in texts}
    try:
        check_regular(path.stat().st_mode)
        frame = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])
    except _READING as error:
        raise ValueError(f"{path} cannot be read: {_reason(error)}") from error
    check_frame(path, frame, columns)
    return frame


def check_frame(path: Path, frame: Frame, columns: Mapping[str, Column]) -> None:
    """Raise ``ValueError`` where a frame's columns are not what they must be.

    Args:
        path: of the file that it was read from, for the message.
        frame: the frame.
        columns: what columns must be; the frame may have others.
    """
    for name, column in columns.items():
        if name not in frame.columns:
            if column.needed:
                raise ValueError(f"{path} has no column {name}")
            continue
        try:
            values = pa.chunked_array([pa.array(frame[name], from_pandas=True)])
            _check(values, column)
        except (_MisfitError, pa.ArrowException, OverflowError, TypeError) as error:
            raise _wrong(path, name, column, error) from None


def read_parquet(
    path: Path,
    columns: Mapping[str, Column],
    only: Sequence[str] | None = None,
    filters: Any = None,
) -> Frame:
    """Return a Parquet file.

    Args:
        path: of the file.
        columns: what its columns must be; the file has these, in any order, or more.
        only: columns to read; None for those of ``columns``.
        filters: of ``pyarrow.parquet.read_table``.

    Raises:
        ValueError: no such file, no Parquet, or a column that is missing or not what it must be.
    """
    wanted = list(columns) if only is None else list(only)
    names = parquet_columns(path)
    for name in wanted:
        if name not in names:
            raise ValueError(f"{path} has no column {name}")
    try:
        table = pq.read_table(path, columns=wanted, filters=filters)
    except _READING as error:
        raise ValueError(f"{path} cannot be read: {_reason(error)}") from error
    for name in wanted:
        try:
            _check(table[name], columns[name])
        except (_MisfitError, pa.ArrowException) as error:
            raise _wrong(path, name, columns[name], error) from None
    # Without the types of pandas that a file's metadata may ask for.
    return table.replace_schema_metadata(None).to_pandas()


def parquet_columns(path: Path) -> list[str]:
    """Return the names of a Parquet file's columns.

    Raises:
        ValueError: no such file, or no Parquet.
    """
    try:
        check_regular(path.stat().st_mode)
        return pq.read_schema(path).names
    except _READING as error:
        raise ValueError(f"{path} cannot be read: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Return an error's text as one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:300]


def _wrong(path: Path, name: str, column: Column, error: BaseException) -> ValueError:
    must = f"{column.kind}{' or empty' if column.empty else ''}"
    return ValueError(f"{path}: column {name} must have {must}: {_reason(error)}")


def _check(values: pa.ChunkedArray, column: Column) -> None:
    """Raise `_MisfitError` where values are not what a column must have."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    found = values.type
    if not pa.types.is_null(found) and not _TYPES[column.kind](found):
        raise _MisfitError(f"it has {found}")
    lacking = values.null_count
    if pa.types.is_floating(found):
        lacking = int(np.isnan(_numbers(values)).sum())
    if lacking and not column.empty:
        raise _MisfitError(f"it is empty in {lacking} lines")
    if not pa.types.is_null(found) and column.kind in _VALUES:
        _VALUES[column.kind](values)


def _numbers(values: pa.ChunkedArray) -> np.ndarray:
    """Return numbers, NaN where there is none."""
    return values.to_numpy(zero_copy_only=False)


def _is_text(found: pa.DataType) -> bool:
    return pa.types.is_string(found) or pa.types.is_large_string(found)


def _is_number(found: pa.DataType) -> bool:
    return pa.types.is_integer(found) or pa.types.is_floating(found)


def _is_list(found: pa.DataType) -> bool:
    return pa.types.is_list(found) or pa.types.is_large_list(found)


_TYPES = {
    Kind.TEXT: _is_text,
    Kind.NUMBER: _is_number,
    Kind.WHOLE: _is_number,
    Kind.FLAG: pa.types.is_boolean,
    Kind.OBJECT: _is_text,
    Kind.TEXTS: lambda found: _is_list(found) and _is_text(found.value_type),
    Kind.NUMBERS: lambda found: _is_list(found) and _is_number(found.value_type),
    Kind.PLACES: lambda found: _is_list(found) and pa.types.is_integer(found.value_type),
}


def _finite(values: pa.ChunkedArray) -> None:
    if np.isinf(_numbers(values)).any():
        raise _MisfitError("one is infinite")


def _whole(values: pa.ChunkedArray) -> None:
    _finite(values)
    # Where some are empty, whole numbers are read as floats.
    known = _numbers(values.drop_null())
    known = known[~np.isnan(known)]
    if (np.floor(known) != known).any():
        raise _MisfitError("one has a fraction")
    if len(known) and (known.max() > _LARGEST or known.min() < -_LARGEST):
        raise _MisfitError(f"one is beyond {_LARGEST}")


def _objects(values: pa.ChunkedArray) -> None:
    for text in values.unique().to_pylist():
        try:
            content = {} if text is None else json.loads(text)
        except RecursionError:
            raise _MisfitError("one is nested too deeply") from None
        except ValueError as error:
            raise _MisfitError(f"one is no JSON: {error}") from None
        if not isinstance(content, dict):
            raise _MisfitError("one is another JSON value")


def _items(values: pa.ChunkedArray) -> pa.Array:
    """Return the items of lists, one after another."""
    found = pa.concat_arrays([chunk.flatten() for chunk in values.chunks] or [pa.array([])])
    if found.null_count:
        raise _MisfitError("one of a list is missing")
    return found


def _places(values: pa.ChunkedArray) -> None:
    found = _items(values).to_numpy(zero_copy_only=False)
    if len(found) and found.min() < 0:
        raise _MisfitError("one is negative")


_VALUES = {
    Kind.NUMBER: _finite,
    Kind.WHOLE: _whole,
    Kind.OBJECT: _objects,
    Kind.TEXTS: _items,
    Kind.NUMBERS: lambda values: _finite(pa.chunked_array([_items(values)])),
    Kind.PLACES: _places,
}
