"""Numbers and tables as Markdown text."""

import math
from collections.abc import Iterable, Sequence

EMPTY = "–"


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Return a number, "–" for NaN."""
    if math.isnan(value):
        return EMPTY
    # Not "-0.0".
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if signed else ''}.{digits}f}"


def between(value: float, low: float, high: float, digits: int, *, signed: bool = False) -> str:
    """Return a number with its interval, without if there is none."""
    shown = number(value, digits, signed=signed)
    if math.isnan(low) or math.isnan(high):
        return shown
    ends = (number(end, digits, signed=signed) for end in (low, high))
    return f"{shown} [{', '.join(ends)}]"


def probability(p: float) -> str:
    """Return a p-value."""
    if math.isnan(p):
        return EMPTY
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table, all but its first column to the right."""
    lines = ["", f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def listed(names: Iterable[str]) -> str:
    """Return names with commas, "–" for none."""
    return ", ".join(names) or EMPTY
