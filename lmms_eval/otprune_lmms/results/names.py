"""What readers are shown as the name of a setting: short, and different for different settings.

A name is a method's name, or the label that an experiment file gives; its budget; and of the other
settings only those in which the rows of that method differ, and the layer where layers differ:
"PruMerge+ 0.4", "OTPrune 0.098, γ = 0.05". The labels of `PruningConfig` name a setting to programs
and stay in files of data; every page, table, figure and terminal shows the names made here.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from otprune_lmms.results.columns import Budget, budget_of
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.kinds import is_empty

METHOD_NAMES: Mapping[str, str] = {
    "otprune": "OTPrune",
    "divprune": "DivPrune",
    "w2greedy": "W2-greedy",
    "dpp": "DPP",
    "herding": "Herding",
    "facility_location": "Facility location",
    "kmedoids": "k-medoids",
    "farthest_point": "Farthest point",
    "random": "Random",
    "uniform": "Uniform stride",
    "grid": "Grid",
    "first_k": "First-K",
    "last_k": "Last-K",
    "fastervlm": "FasterVLM",
    "vispruner": "VisPruner",
    "scope": "SCOPE",
    "holov": "HoloV",
    "cdpruner": "CDPruner",
    "mmtok": "MMTok",
    "visionzip": "VisionZip",
    "prumerge": "PruMerge",
    "tome": "ToMe",
    "pooling": "Average pooling",
    "downsample": "Downsampling",
    "fastv": "FastV",
    "pyramiddrop": "PyramidDrop",
    "transprune": "TransPrune",
    "sparsevlm": "SparseVLM",
    "dart": "DART",
    "tops": "TOPS",
    "vtw": "VTW",
}
"""Names of methods as their papers write them; a method of another package keeps its own."""

CONTROLS = ("random", "uniform", "pooling", "downsample")
"""Methods that any other must beat at equal tokens, or it has gained nothing."""

_OWN_NAMES = {
    ("prumerge", "plus", True): "PruMerge+",
    ("sparsevlm", "version", "2"): "SparseVLM v2",
}
"""A method with one setting that has a name of its own: (method, setting, value)."""

_GREEK = {"gamma": "γ", "alpha": "α", "beta": "β", "epsilon": "ε"}
_BY_VALUE: Mapping[str, Mapping[str, str]] = {
    "preset": {},
    "positions": {},
    "compat": {},
    "match": {"flops": "by multiply-adds", "average": "average", "kept": "kept at the end"},
}
"""Settings of which readers see the value alone, or these words."""

_TOKENS = ("kept", "average")
"""What budgets of tokens count, see `columns`."""

UNPRUNED_NAME = "unpruned"

LONGEST_LABEL = 40
"""Letters of a label that an experiment file gives."""


@dataclass(frozen=True, slots=True)
class Name:
    """The names of a row of tables: a setting, its seeds together.

    Attributes:
        line: without budget and layer: what a figure calls a line.
        short: without the budget, for a table of one budget.
        whole: with it; no two rows of an experiment have the same.
    """

    line: str
    short: str
    whole: str


class Names:
    """The names of an experiment's settings.

    Args:
        settings: the columns of each setting, `columns.SETTING`; with ``label`` where the experiment
            file gives one. Of several with one ``row`` the first counts, but for its seed.
    """

    def __init__(self, settings: Iterable[Mapping[str, Any]]) -> None:
        rows: dict[str, _Row] = {}
        seeds: dict[str, dict[str, int | None]] = {}
        for one in settings:
            row = str(one["row"])
            if row not in rows:
                rows[row] = _Row.of(one)
            seed = _known(one, "seed")
            seeds.setdefault(row, {})[str(one.get("setting", row))] = None if seed is None else int(seed)
        self._rows = rows
        self._seeds = {
            setting: (row, seed if len(own) > 1 else None)
            for row, own in seeds.items()
            for setting, seed in own.items()
        }

    def of(self, row: str) -> Name:
        """Return the names of a row; those of an unknown one are the row itself."""
        return self._names.get(row) or Name(row, row, row)

    def whole(self, row: object) -> str:
        """Return the name of a row with its budget."""
        return self.of(str(row)).whole

    def setting(self, setting: str) -> str:
        """Return the name of a setting: its row's, and the seed where the row has several."""
        if setting not in self._seeds:
            return setting
        row, seed = self._seeds[setting]
        return self.whole(row) if seed is None else f"{self.whole(row)}, seed {seed}"

    @property
    def unsaid(self) -> Mapping[str, str]:
        """By name without budget and layer, the settings that the name leaves out.

        They differ from the method's defaults and are the same in all its rows.
        """
        found: dict[str, str] = {}
        for row, one in self._rows.items():
            said = self._said[one.base]
            left = {n: v for n, v in one.settings.items() if n not in (*said, "match")}
            if left:
                found[self.of(row).line] = in_words(left)
        return found

    @cached_property
    def _said(self) -> Mapping[str, Sequence[str]]:
        """Return by beginning of a name the settings that names of it say."""
        return {
            base: _differing([self._rows[row].settings for row in rows])
            for base, rows in self._groups.items()
        }

    @cached_property
    def _groups(self) -> Mapping[str, Sequence[str]]:
        """Return the rows by the beginning of their names."""
        groups: dict[str, list[str]] = {}
        for row, one in self._rows.items():
            groups.setdefault(one.base, []).append(row)
        return groups

    @cached_property
    def _names(self) -> Mapping[str, Name]:
        found: dict[str, Name] = {}
        layers = len({one.layer for one in self._rows.values() if one.base != UNPRUNED_NAME}) > 1
        for base, rows in self._groups.items():
            found |= _of_group({row: self._rows[row] for row in rows}, self._said[base], layers)
        return _apart(found)


@dataclass(frozen=True)
class _Row:
    """What a name is made of.

    Attributes:
        base: its beginning: the label, or the method's name.
        settings: what differs from the method's defaults, without what ``base`` says.
        layer: where it prunes.
        budget: how much it may keep.
    """

    base: str
    settings: Mapping[str, Any]
    layer: int
    budget: Budget

    @classmethod
    def of(cls, setting: Mapping[str, Any]) -> "_Row":
        method = _known(setting, "method")
        if method is None:
            return cls(UNPRUNED_NAME, {}, 0, Budget())
        changed = json.loads(_known(setting, "changed_settings") or "{}")
        base = method_name(method)
        for (of, name, value), own in _OWN_NAMES.items():
            if of == method and changed.get(name) == value:
                base = own
                changed = {key: other for key, other in changed.items() if key != name}
        base = _known(setting, "label") or base
        match = _known(setting, "match")
        budget = budget_of(setting.get("keep_ratio"), setting.get("k"), match)
        changed |= {} if match is None else {"match": match}
        return cls(base, changed, int(_known(setting, "layer") or 0), budget)


def method_name(method: str) -> str:
    """Return what readers are shown for a method's name."""
    return METHOD_NAMES.get(method, method)


def names_of(records: Frame | None, configs: Sequence[Mapping[str, Any]] = ()) -> Names:
    """Return the names of a results folder's settings.

    Args:
        records: lines with the columns of settings; None for none.
        configs: of the manifest (`Manifest.configs`), which may have labels.
    """
    lines = [] if records is None else records.drop_duplicates("setting").to_dict("records")
    return Names([*configs, *lines])


def in_words(settings: Mapping[str, Any]) -> str:
    """Return settings as names show them: {"gamma": 0.05, "plus": True} is "γ = 0.05, plus"."""
    return ", ".join(_words(name, value) for name, value in settings.items())


def symbol(name: str) -> str:
    """Return what readers are shown for a setting's name: "γ", "keep newlines"."""
    return _GREEK.get(name, name.replace("_", " "))


def _words(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return symbol(name) if value else f"no {symbol(name)}"
    if isinstance(value, int | float):
        short = f"{value:g}"
        return f"{symbol(name)} = {short if float(short) == value else value}"
    if value is None:
        return f"no {symbol(name)}"
    if name in _BY_VALUE:
        return _BY_VALUE[name].get(str(value), str(value).replace("_", " "))
    return f"{symbol(name)} {value}".replace("_", " ")


def _of_group(
    rows: Mapping[str, _Row], differing: Sequence[str], layers: bool
) -> dict[str, Name]:
    """Return the names of rows that begin alike: with the settings in which they differ.

    Args:
        rows: that begin alike.
        differing: settings in which they differ.
        layers: whether names say the layer.
    """
    counted = len({one.budget.multiply_adds for one in rows.values()}) > 1
    budgets = any(not one.budget.own_schedule for one in rows.values())
    found = {}
    for row, one in rows.items():
        own = {name: one.settings[name] for name in differing if name in one.settings}
        if one.budget.multiply_adds:
            own.pop("match", None)
        words = [in_words(own)] if own else []
        line = [*words, "by multiply-adds"] if counted and one.budget.multiply_adds else words
        layer = [f"layer {one.layer}"] if layers and one.layer else []
        amount = _amount(one.budget)
        schedule = [one.budget.label] if budgets and one.budget.own_schedule else []
        schedule = schedule if one.base != UNPRUNED_NAME else []
        found[row] = Name(
            ", ".join([one.base, *line]),
            ", ".join([one.base, *words, *layer]),
            ", ".join([f"{one.base} {amount}".rstrip(), *schedule, *words, *layer]),
        )
    return found


def _amount(budget: Budget) -> str:
    amount = budget.amount if budget.k is None else f"k = {budget.k}"
    return f"{amount} flops" if budget.multiply_adds else amount


def _differing(every: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings that are not the same in all rows.

    What a budget counts is one only where tokens are counted in two ways: a budget of multiply-adds
    says so itself, and a schedule without a budget counts nothing.
    """
    absent = object()
    found = []
    for name in dict.fromkeys(name for settings in every for name in settings):
        having = [one for one in every if one.get(name) in _TOKENS] if name == "match" else every
        values = [settings.get(name, absent) for settings in having]
        if any(value != values[0] for value in values):
            found.append(name)
    return found


def _apart(names: Mapping[str, Name]) -> dict[str, Name]:
    """Return names that are all different: of equal ones all but the first have their row added."""
    found: dict[str, Name] = {}
    taken: set[str] = set()
    for row, name in names.items():
        whole = name.whole if name.whole not in taken else f"{name.whole} ({row})"
        taken.add(whole)
        found[row] = Name(name.line, name.short, whole)
    return found


def _known(setting: Mapping[str, Any], name: str) -> Any:
    """Return a value of a setting; None where it is empty."""
    value = setting.get(name)
    return None if is_empty(value) else value
