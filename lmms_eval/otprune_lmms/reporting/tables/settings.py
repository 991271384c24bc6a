"""The rows of a table: which settings were run or planned."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from otprune_lmms.results.columns import Budget, budget_of
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import PlannedRow
from otprune_lmms.results.names import Name, Names, names_of
from otprune_lmms.results.records import UNPRUNED


@dataclass(frozen=True, slots=True)
class RowSetting:
    """The setting that a row of the table is about, its seeds together.

    Attributes:
        model: that answered.
        row: as in the records.
        name: what readers are shown, see `results.names`.
        method: None for the unpruned model.
        budget: how much it may keep.
        layer: where it prunes.
        match: what the budget counts: "kept", "average" or "flops"; None for a schedule without a
            budget.
        seeds: labels of the settings that share the row; empty where nothing was run.
        tasks: that were run.
    """

    model: str
    row: str
    name: Name
    method: str | None = None
    budget: Budget = Budget()
    layer: int = 0
    match: str | None = None
    seeds: tuple[str, ...] = ()
    tasks: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[str, str]:
        """Model and row."""
        return self.model, self.row

    @property
    def own_schedule(self) -> bool:
        """Whether it prunes without a budget."""
        return self.method is not None and self.budget.own_schedule

    @property
    def by_layer(self) -> bool:
        """Whether the budget counts tokens over all layers, not those kept at the end."""
        return self.own_schedule or self.match in ("average", "flops")


def settings_of(records: Frame, names: Names | None = None) -> list[RowSetting]:
    """Return the settings of some records, in order of first appearance.

    Args:
        records: of an experiment.
        names: of its settings; None for those that follow from the records.
    """
    known = names_of(records) if names is None else names
    return [
        _setting(str(model), str(row), some, known)
        for (model, row), some in records.groupby(["model", "row"], sort=False)
    ]


def with_planned(
    found: Sequence[RowSetting],
    models: Sequence[str],
    planned: Sequence[PlannedRow],
    names: Names,
) -> list[RowSetting]:
    """Return the settings with those that were planned and not run, models in their order."""
    known = {setting.key for setting in found}
    every = list(dict.fromkeys([*models, *(setting.model for setting in found)]))
    # A folder that does not list its settings still has a row for each model.
    rows = planned or (PlannedRow(UNPRUNED, UNPRUNED),)
    order = {one.row: place for place, one in enumerate(rows)}
    whole = []
    for model in every:
        own = [setting for setting in found if setting.model == model]
        if planned or not own:
            own += [_not_run(model, one, names) for one in rows if (model, one.row) not in known]
        whole += sorted(own, key=lambda setting: order.get(setting.row, len(order)))
    return whole


def _not_run(model: str, one: PlannedRow, names: Names) -> RowSetting:
    return RowSetting(
        model, one.row, names.of(one.row), one.method, one.budget, one.layer, one.match
    )


def _setting(model: str, row: str, records: Frame, names: Names) -> RowSetting:
    first = records.iloc[0]
    return RowSetting(
        model=model,
        row=row,
        name=names.of(row),
        method=None if pd.isna(first["method"]) else str(first["method"]),
        budget=budget_of(first["keep_ratio"], first["k"], first["match"]),
        layer=0 if pd.isna(first["layer"]) else int(first["layer"]),
        match=None if pd.isna(first["match"]) else str(first["match"]),
        seeds=tuple(dict.fromkeys(records["setting"])),
        tasks=frozenset(records["task"]),
    )
