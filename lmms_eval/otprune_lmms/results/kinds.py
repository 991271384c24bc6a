"""What columns of a results folder's files hold; nothing heavy is imported to say so."""

import math
from enum import StrEnum
from typing import Any, NamedTuple


class Kind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    NUMBER = "finite numbers"
    WHOLE = "whole numbers"
    FLAG = "true or false"
    OBJECT = "JSON objects"
    TEXTS = "lists of text"
    NUMBERS = "lists of finite numbers"
    PLACES = "lists of whole numbers from 0 on"


class Column(NamedTuple):
    """What a column holds, whether it may be empty in some lines, whether it must be there."""

    kind: Kind
    empty: bool = False
    needed: bool = True


def is_empty(value: Any) -> bool:
    """Return whether a value of a line is none: None, NaN, or pandas' own."""
    if value is None or isinstance(value, str | int):
        return value is None
    if isinstance(value, float):
        return math.isnan(value)
    import pandas as pd

    return bool(pd.isna(value))
