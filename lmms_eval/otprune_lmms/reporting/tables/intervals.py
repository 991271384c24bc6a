"""95 % intervals of a results folder, from the files that `reporting.statistics` writes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from otprune_lmms.reporting.statistics.answers import ALL
from otprune_lmms.results.checked import Column, Kind, read_csv

_AVERAGES, _SCORES, _ANSWERS = "averages.csv", "intervals.csv", "answers.csv"
_CLOSE = 1e-6
"""Relative distance at which two computations of one number are the same."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with its interval.

    Attributes:
        value: the number that the interval is of.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def of(self, value: float) -> bool:
        """Return whether the interval is that of a value, and not of older records."""
        return math.isclose(value, self.value, rel_tol=_CLOSE, abs_tol=_CLOSE)


@dataclass(frozen=True)
class Intervals:
    """Intervals of a table, by (model, row, task) and (model, row, rule).

    Attributes:
        scores: of scores.
        averages: of relative averages; the rule by its name in `statistics.averages`.
        answers: quantities of the answers, mean over tasks, by (model, row, quantity).
    """

    scores: Mapping[tuple[str, str, str], Interval] = field(default_factory=dict)
    averages: Mapping[tuple[str, str, str], Interval] = field(default_factory=dict)
    answers: Mapping[tuple[str, str, str], Interval] = field(default_factory=dict)


def read_intervals(folder: Path) -> Intervals:
    """Return the intervals of a folder; none where the statistics have not been made.

    Raises:
        ValueError: a file of another format.
    """
    return Intervals(
        _read(folder / _SCORES, "task"),
        _read(folder / _AVERAGES, "rule"),
        _read(folder / _ANSWERS, "quantity", task=ALL),
    )


def _read(path: Path, third: str, task: str | None = None) -> dict[tuple[str, str, str], Interval]:
    if not path.is_file():
        return {}
    names, ends = ["model", "row", third], ["value", "low", "high"]
    lines = read_csv(
        path,
        {
            **dict.fromkeys([*names, *([] if task is None else ["task"])], Column(Kind.TEXT)),
            **dict.fromkeys(ends, Column(Kind.NUMBER, empty=True)),
        },
    )
    if task is not None:
        lines = lines[lines["task"] == task]
    numbers = lines[ends].astype(float)
    keys = lines[names].itertuples(index=False, name=None)
    return {
        key: Interval(*found)
        for key, found in zip(keys, numbers.itertuples(index=False, name=None), strict=True)
        if not any(math.isnan(number) for number in found)
    }
