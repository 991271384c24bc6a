"""The published numbers as a frame, with their units and the benchmark that each belongs to."""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import pandas as pd

from otprune_lmms.benchmarks import all_benchmarks
from otprune_lmms.results.frames import Frame, PandasSeries

PRINTED = (
    "method",
    "variant",
    "model",
    "budget_kind",
    "keep_tokens_or_ratio",
    "budget_note",
    "benchmark",
    "metric",
    "score",
    "source",
    "provenance",
    "remark",
)
"""Columns of ``scores.csv``; the README beside it says what they hold."""

COLUMNS = (*PRINTED, "value", "unit", "task")
"""Columns of `load`."""


def load(
    *,
    source: str | Iterable[str] | None = None,
    model: str | Iterable[str] | None = None,
    budget: str | float | Iterable[str | float] | None = None,
) -> Frame:
    """Return the published numbers, one a line.

    Args:
        source: a paper with its table, as in the column ``source``; or several.
        model: as in the column ``model``; or several.
        budget: tokens kept (128) or their ratio (0.098), or a ``budget_kind`` ("full", "flops", …);
            or several.

    Returns:
        The lines of ``scores.csv`` that fit all of it, in their order, columns `COLUMNS`:
        ``score`` as printed; ``value`` the same in ``unit`` (``units.csv``: one for each metric);
        ``task`` the name of the benchmark in our tables whose headline it is, "" for any other
        number. ``keep_tokens_or_ratio`` is NaN where a paper gives none.

    Raises:
        ValueError: no line has a given source, model or budget; the message lists the known ones.
    """
    found = _all()
    keep = pd.Series(data=True, index=found.index)
    keep &= _among(found["source"], "source", source)
    keep &= _among(found["model"], "model", model)
    if budget is not None:
        several = [budget] if isinstance(budget, str | int | float) else list(budget)
        kinds = [one for one in several if isinstance(one, str)]
        kept = [float(one) for one in several if not isinstance(one, str)]
        keep &= _among(found["budget_kind"], "budget", kinds) | _among(
            found["keep_tokens_or_ratio"], "budget", kept
        )
    return found[keep].reset_index(drop=True)


def wide(numbers: Frame) -> Frame:
    """Return numbers as a table: one line a setting, one column a benchmark of our tables.

    Args:
        numbers: lines of `load`; those without a ``task`` are left out.

    Returns:
        ``value`` by (source, model, method, variant, budget_kind, keep_tokens_or_ratio,
        budget_note) and ``task``, both in order of appearance; NaN where a paper prints none.
    """
    index = [
        "source",
        "model",
        "method",
        "variant",
        "budget_kind",
        "keep_tokens_or_ratio",
        "budget_note",
    ]
    ours = numbers[numbers["task"] != ""]
    return ours.set_index([*index, "task"])["value"].unstack("task", sort=False)


def _among(column: PandasSeries, name: str, wanted: str | Iterable[object] | None) -> PandasSeries:
    """Return where a column has one of the wanted values; everywhere if none is named."""
    if wanted is None:
        return pd.Series(data=True, index=column.index)
    values = [wanted] if isinstance(wanted, str) else list(wanted)
    known = list(column.dropna().unique())
    for value in values:
        if value not in known:
            listed = ", ".join(str(one) for one in known)
            raise ValueError(f"{name} must be one of {listed}; got {value!r}")
    return column.isin(values)


@cache
def _all() -> Frame:
    numbers = _file("scores.csv")
    numbers["score"] = numbers["score"].astype(float)
    numbers["keep_tokens_or_ratio"] = pd.to_numeric(numbers["keep_tokens_or_ratio"])
    units = _file("units.csv").set_index("metric")
    numbers["value"] = (numbers["score"] * numbers["metric"].map(units["factor"])).round(6)
    numbers["unit"] = numbers["metric"].map(units["unit"])
    numbers["task"] = _tasks(numbers)
    return numbers[list(COLUMNS)]


def _file(name: str) -> Frame:
    with (files("otprune_lmms.reporting.published") / name).open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False, dtype={"score": str})


def _tasks(numbers: Frame) -> list[str]:
    """Return for each line the benchmark whose headline it is; "" for any other number."""
    names = [(one.name, name) for one in all_benchmarks().values() for name in one.printed]
    lines = zip(numbers["benchmark"], numbers["metric"], numbers["source"], strict=True)
    return [next((task for task, name in names if name.covers(*line)), "") for line in lines]
