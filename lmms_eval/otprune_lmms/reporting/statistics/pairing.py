"""Which rows are compared with which."""

from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from otprune_lmms.results.columns import Budget, budget_of
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.records import UNPRUNED


@dataclass(frozen=True, slots=True)
class ComparableRow:
    """A row of a model, with what decides which other rows it is compared with.

    Attributes:
        row: as in the records.
        method: None for the unpruned model.
        budget: how much the row may keep.
        layer: where it prunes.
        match: what the budget counts.
        changed_settings: as in `results.columns`.
    """

    row: str
    method: str | None = None
    budget: Budget = Budget()
    layer: int = 0
    match: str | None = None
    changed_settings: str = "{}"

    @property
    def group(self) -> str:
        """Rows of one group are compared: "0.098", "k64", "0.098 at layer 2", "own schedule"."""
        return f"{self.budget.label} at layer {self.layer}" if self.layer else self.budget.label


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rows that are compared.

    Attributes:
        budget: that they have in common.
        a: a row.
        b: the row that it is compared with.
    """

    budget: str
    a: str
    b: str

    @property
    def pair(self) -> tuple[str, str]:
        """Both rows."""
        return self.a, self.b


def rows_of(records: Frame) -> list[ComparableRow]:
    """Return the rows of one model, in order of appearance."""
    return [_row(line) for line in records.drop_duplicates("row").itertuples(index=False)]


def _row(line: Frame) -> ComparableRow:
    if line.row == UNPRUNED or pd.isna(line.method):
        return ComparableRow(line.row)
    return ComparableRow(
        line.row,
        line.method,
        budget_of(line.keep_ratio, line.k, line.match),
        0 if pd.isna(line.layer) else int(line.layer),
        None if pd.isna(line.match) else line.match,
        "{}" if pd.isna(line.changed_settings) else line.changed_settings,
    )


def comparisons(rows: list[ComparableRow]) -> list[Comparison]:
    """Return all comparisons of a model's rows.

    - Rows of one budget and layer, each with each. Schedules without a budget differ in cost, so
      they are not compared with each other.
    - One setting at several layers: each layer with the lowest one (budget "0.098, layers").
      Deeper layers cost more, so these comparisons are not at equal cost.
    - Every pruned row with the unpruned model.
    """
    pruned = [row for row in rows if row.method is not None]
    groups = list(dict.fromkeys(row.group for row in pruned))
    found = [
        Comparison(group, a.row, b.row)
        for group in groups
        for a, b in combinations([row for row in pruned if row.group == group], 2)
        if not a.budget.own_schedule
    ]
    found += _layers(pruned)
    if any(row.row == UNPRUNED for row in rows):
        found += [
            Comparison(group, row.row, UNPRUNED)
            for group in groups
            for row in pruned
            if row.group == group
        ]
    return found


def _layers(rows: list[ComparableRow]) -> list[Comparison]:
    """Return the comparisons of rows that differ in their layer alone."""
    alike: dict[tuple[object, ...], list[ComparableRow]] = {}
    for row in rows:
        key = (row.method, row.budget, row.match, row.changed_settings)
        alike.setdefault(key, []).append(row)
    found = []
    for some in alike.values():
        lowest, *others = sorted(some, key=lambda row: row.layer)
        found += [
            Comparison(f"{row.budget.label}, layers", row.row, lowest.row)
            for row in others
            if row.layer != lowest.layer
        ]
    return found
