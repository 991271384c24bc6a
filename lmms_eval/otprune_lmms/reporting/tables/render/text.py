"""Numbers as they are shown, the same in every format."""

from otprune_lmms.reporting.tables.layout import Column, Entry
from otprune_lmms.reporting.tables.notes import DOUBT

SETTING = "setting"
"""Heading of the first column."""


def shown(entry: Entry, column: Column, doubt: str = DOUBT) -> str:
    """Return an entry's number, or what stands in its place."""
    if entry.value is None:
        return entry.empty
    return f"{entry.value:.{column.digits}f}" + (doubt if entry.doubted else "")


def interval(entry: Entry, column: Column) -> str:
    """Return an entry's interval, "" without one."""
    if entry.low is None or entry.high is None:
        return ""
    return f"[{entry.low:.{column.digits}f}, {entry.high:.{column.digits}f}]"


def beside(entry: Entry, column: Column) -> str:
    """Return the interval that stands beside its number: those of averages, "" for others."""
    return interval(entry, column) if column.kind == "relative" else ""
