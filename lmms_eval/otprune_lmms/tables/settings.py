"""The rows of a table: which settings were run, or asked for, and what they kept."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from otprune_lmms.tables.manifest import Planned
from otprune_lmms.tables.records import UNPRUNED

Budget = tuple[str, float]
"""Settings of one budget share a block: ("ratio", share), ("k", count) or ("none", 0)."""

_NUMBER = re.compile(r"^(.*?[A-Za-z_])(-?\d[\d.e-]*)$")
"""A setting's name and its number, as ``gamma0.05``."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table, before its numbers.

    Attributes:
        model: what answered.
        label: ``row`` of the records.
        method: None for unpruned.
        keep_ratio: share kept; or
        k: how many.
        layer: where it prunes.
        cells: seeds of the setting; empty where nothing was run.
        tasks: that were run.
        kept: tokens left of an image, mean over tasks and seeds; None where unknown.
        visual: tokens before.
    """

    model: str
    label: str
    method: str | None = None
    keep_ratio: float | None = None
    k: int | None = None
    layer: int = 0
    cells: tuple[str, ...] = ()
    tasks: frozenset[str] = frozenset()
    kept: float | None = None
    visual: float | None = None

    @property
    def budget(self) -> Budget:
        """What the setting may keep."""
        if self.keep_ratio is not None:
            return ("ratio", self.keep_ratio)
        return ("none", 0.0) if self.k is None else ("k", float(self.k))

    @property
    def name(self) -> str:
        """The label without its budget: ``otprune, layer 2, gamma 0.05``."""
        if self.method is None:
            return self.label
        # As `Cell.label` writes it: method, budget, and what else differs from the defaults.
        budget = r"k\d+" if self.keep_ratio is None else r"[0-9.]+(?:e-?\d+)?"
        after = re.fullmatch(rf"{re.escape(self.method)}-{budget}((?:-.+)?)", self.label)
        if after is None:
            return self.label
        # A dash before a digit belongs to a number such as 1e-05.
        more = [part for part in re.split(r"-(?=[A-Za-z_])", after[1]) if part]
        return ", ".join([self.method, *(_NUMBER.sub(r"\1 \2", part) for part in more)])


def settings_of(records: pd.DataFrame) -> list[Setting]:
    """Return the settings of some records, in order of first appearance."""
    places = records[["model", "row"]].drop_duplicates()
    return [
        _setting(model, row, records.loc[(records["model"] == model) & (records["row"] == row)])
        for model, row in places.itertuples(index=False, name=None)
    ]


def with_planned(
    found: Sequence[Setting], models: Sequence[str], planned: Sequence[Planned]
) -> list[Setting]:
    """Return the settings with those that were asked for and not run, models in their order."""
    known = {(setting.model, setting.label) for setting in found}
    every = list(dict.fromkeys([*models, *(setting.model for setting in found)]))
    # A folder that does not list its cells still has a row for each model.
    asked = planned or (Planned(UNPRUNED),)
    whole = []
    for model in every:
        own = [setting for setting in found if setting.model == model]
        if planned or not own:
            own += [
                Setting(model, one.row, one.method, one.keep_ratio, one.k, one.layer)
                for one in asked
                if (model, one.row) not in known
            ]
        order = {one.row: place for place, one in enumerate(asked)}
        whole += sorted(own, key=lambda setting: order.get(setting.label, len(order)))
    return whole


def _setting(model: str, label: str, records: pd.DataFrame) -> Setting:
    first = records.iloc[0]
    # One line a metric: counts are the same in all lines of a cell and task.
    once = records.drop_duplicates(["cell", "task"])
    return Setting(
        model=model,
        label=label,
        method=None if pd.isna(first["method"]) else str(first["method"]),
        keep_ratio=_number(first["keep_ratio"]),
        k=None if pd.isna(first["k"]) else int(first["k"]),
        layer=0 if pd.isna(first["layer"]) else int(first["layer"]),
        cells=tuple(dict.fromkeys(records["cell"])),
        tasks=frozenset(records["task"]),
        kept=_number(once["kept_tokens"].astype(float).mean()),
        visual=_number(once["visual_tokens"].astype(float).mean()),
    )


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
