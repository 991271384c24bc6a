"""Which rows are compared with which."""

import re
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from otprune_lmms.reporting.tables.labels import parts_of
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.records import UNPRUNED

OWN = "own schedule"
"""Budget of a schedule as it is."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a model.

    Attributes:
        label: ``row`` of the records.
        budget: what it may keep and where: "0.098", "k64", "0.098 at layer 2", "0.5 flops"; "own
            schedule" without a budget; "" if unpruned.
        kept: the budget without the layer.
        layer: where it prunes.
    """

    label: str
    budget: str
    kept: str
    layer: int


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


def rows_of(records: Frame) -> list[Row]:
    """Return the rows of one model, in order of appearance."""
    first = records.drop_duplicates("row")
    columns = first[["row", "method", "keep_ratio", "k", "layer"]]
    return [_row(*line) for line in columns.itertuples(index=False, name=None)]


def _row(label: str, method: object, keep_ratio: float, k: float, layer: float) -> Row:
    if label == UNPRUNED or not isinstance(method, str):
        return Row(label, "", "", 0)
    kept = f"{keep_ratio:g}" if pd.notna(keep_ratio) else f"k{int(k)}" if pd.notna(k) else OWN
    about = parts_of(label, method, keep_ratio, k)
    if about is not None and about[0] == "flops":
        kept += " flops"
    depth = 0 if pd.isna(layer) else int(layer)
    return Row(label, f"{kept} at layer {depth}" if depth else kept, kept, depth)


def comparisons(rows: list[Row]) -> list[Comparison]:
    """Return all comparisons of a model's rows.

    Rows of one budget, each with each (schedules without a budget cost each what they cost and are
    not compared with each other); one setting at several layers, each layer with its lowest
    (budget "0.098, layers"; deeper layers cost more, so these are not at equal cost); every pruned
    row with the unpruned model.
    """
    pruned = [row for row in rows if row.budget]
    budgets = list(dict.fromkeys(row.budget for row in pruned))
    found = [
        Comparison(budget, a.label, b.label)
        for budget in budgets
        if budget != OWN
        for a, b in combinations([row for row in pruned if row.budget == budget], 2)
    ]
    found += _layers(pruned)
    if any(row.label == UNPRUNED for row in rows):
        found += [
            Comparison(budget, row.label, UNPRUNED)
            for budget in budgets
            for row in pruned
            if row.budget == budget
        ]
    return found


def _layers(rows: list[Row]) -> list[Comparison]:
    same: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        label = re.sub(rf"-layer{row.layer}(?=-|$)", "", row.label)
        same.setdefault((row.kept, label), []).append(row)
    found = []
    for (kept, _), some in same.items():
        lowest, *others = sorted(some, key=lambda row: row.layer)
        found += [
            Comparison(f"{kept}, layers", row.label, lowest.label)
            for row in others
            if row.layer != lowest.layer
        ]
    return found
