"""The rows of a table: which settings were run, or asked for, and what they kept."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from otprune_lmms.reporting.tables.labels import hashed, parts_of
from otprune_lmms.results.manifest import Planned
from otprune_lmms.results.records import UNPRUNED

Budget = tuple[str, float]
"""Settings of one budget share a block: ("ratio", share) or ("k", count) of the tokens, be they
those kept or the average over layers; ("flops ratio", share) or ("flops k", count) of the
multiply-adds; ("none", 0) for schedules without a budget."""

_FIELDS = ("method", "keep_ratio", "k", "match", "seed")
"""What a row's name does not say of its settings."""

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
        match: what the budget is about: "kept", "average" or "flops"; None for a schedule without a
            budget, and where the folder does not say.
        settings: the cell's, as `Cell.make` takes them; empty where the folder does not say.
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
    match: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def budget(self) -> Budget:
        """What the setting may keep."""
        kind = "flops " if self.match == "flops" else ""
        if self.keep_ratio is not None:
            return (f"{kind}ratio", self.keep_ratio)
        return ("none", 0.0) if self.k is None else (f"{kind}k", float(self.k))

    @property
    def own_schedule(self) -> bool:
        """Whether it prunes without a budget."""
        return self.method is not None and self.budget[0] == "none"

    @property
    def by_layer(self) -> bool:
        """Whether the amount is one of all layers together, not of the tokens kept."""
        return self.own_schedule or self.match in ("average", "flops")

    @property
    def name(self) -> str:
        """The label without its budget: ``otprune, layer 2, gamma 0.05``."""
        if self.method is None:
            return self.label
        found = parts_of(self.label, self.method, self.keep_ratio, self.k)
        if found is None:
            return self.label
        _, more = found
        if hashed(self.label) and self.settings:
            own = {name: self.settings[name] for name in self.settings if name not in _FIELDS}
            return ", ".join([self.method, *(f"{name} {value}" for name, value in own.items())])
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
        own = [_told(setting, planned) for setting in own]
        order = {one.row: place for place, one in enumerate(asked)}
        whole += sorted(own, key=lambda setting: order.get(setting.label, len(order)))
    return whole


def _told(setting: Setting, planned: Sequence[Planned]) -> Setting:
    """Return a setting with what the manifest knows of it and the records do not."""
    one = next((one for one in planned if one.row == setting.label), None)
    if one is None:
        return setting
    return replace(setting, match=one.match, settings=one.settings)


def _setting(model: str, label: str, records: pd.DataFrame) -> Setting:
    first = records.iloc[0]
    # One line a metric: counts are the same in all lines of a cell and task.
    once = records.drop_duplicates(["setting", "task"])
    return Setting(
        model=model,
        label=label,
        method=None if pd.isna(first["method"]) else str(first["method"]),
        keep_ratio=_number(first["keep_ratio"]),
        k=None if pd.isna(first["k"]) else int(first["k"]),
        layer=0 if pd.isna(first["layer"]) else int(first["layer"]),
        cells=tuple(dict.fromkeys(records["setting"])),
        tasks=frozenset(records["task"]),
        kept=_number(once["kept_tokens"].astype(float).mean()),
        visual=_number(once["visual_tokens"].astype(float).mean()),
    )


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
