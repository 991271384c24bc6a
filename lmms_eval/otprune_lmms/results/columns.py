"""The columns of a pruning config in the files of a results folder.

In these files a pruning config is called a setting. Every file with lines about settings has all of
these columns, filled by `PruningConfig.columns`: readers select and group by columns and never
parse a label.
"""

from dataclasses import dataclass
from typing import Any

from otprune_lmms.results.kinds import Column, Kind, is_empty

SETTING_TYPES: dict[str, str] = {
    "setting": "string",
    "row": "string",
    "name": "string",
    "method": "string",
    "keep_ratio": "double",
    "k": "int64",
    "layer": "int64",
    "match": "string",
    "positions": "string",
    "keep_newlines": "bool",
    "compat": "string",
    "settings": "string",
    "changed_settings": "string",
    "seed": "int64",
}
"""Columns and their types in Arrow's words.

``setting`` is the pruning config's label, ``row`` the label without the seed (seeds share a row of
a table), ``name`` the row without its budget; all three are for readers. ``method`` is empty for
the unpruned model. ``keep_ratio`` or ``k`` is the budget, ``match`` what it counts ("kept",
"average", "flops"), all three empty for a schedule without a budget; see `Budget`. ``layer`` is
where it prunes, 0 before the language model and for methods whose schedule has layers. ``positions``
("compact" or "original"), ``keep_newlines`` and ``compat`` as in `PruningConfig`. ``settings`` is a
JSON object of all the method's own settings, defaults included, without its seed.
``changed_settings`` is a JSON object of what differs from the defaults, without method, budget,
layer and seed: rows of one method with equal changed settings differ only in how much they keep and
where. ``seed`` is that of a random method.
"""

SETTING = tuple(SETTING_TYPES)
"""The columns in their order."""

TEXTS = tuple(name for name, kind in SETTING_TYPES.items() if kind == "string")
"""Columns that are text, even where they look like numbers; to be given to a CSV reader."""

_KINDS = {
    "string": Kind.TEXT,
    "double": Kind.NUMBER,
    "int64": Kind.WHOLE,
    "bool": Kind.FLAG,
}

_MAY_BE_EMPTY = ("method", "keep_ratio", "k", "match", "positions", "compat", "seed")

SETTING_COLUMNS = {
    name: Column(Kind.OBJECT)
    if name in ("settings", "changed_settings")
    else Column(_KINDS[kind], name in _MAY_BE_EMPTY)
    for name, kind in SETTING_TYPES.items()
}
"""What a file's columns must hold."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a setting may keep; settings of one budget are compared with each other.

    A share of the kept tokens and the same share of the tokens averaged over layers are one budget;
    a share of the multiply-adds is another.

    Attributes:
        keep_ratio: share of the tokens; or
        k: number of tokens. Both are None for a schedule without a budget.
        multiply_adds: whether the setting has as many multiply-adds as a model with that many
            tokens, instead of that many tokens.
    """

    keep_ratio: float | None = None
    k: int | None = None
    multiply_adds: bool = False

    @property
    def own_schedule(self) -> bool:
        """Whether there is no budget: a schedule used unchanged."""
        return self.keep_ratio is None and self.k is None

    @property
    def amount(self) -> str:
        """The number: "0.098" for a share (all digits), "k56" for a count, "" without a budget."""
        if self.keep_ratio is not None:
            short = f"{self.keep_ratio:g}"
            return short if float(short) == self.keep_ratio else repr(self.keep_ratio)
        return "" if self.k is None else f"k{self.k}"

    @property
    def label(self) -> str:
        """The budget in files: "0.098", "k56", "0.5 flops", "own schedule"."""
        if self.own_schedule:
            return OWN_SCHEDULE
        return f"{self.amount} flops" if self.multiply_adds else self.amount

    @property
    def heading(self) -> str:
        """The budget in headings: "keep ratio 0.098", "56 tokens"."""
        if self.own_schedule:
            return "own schedules"
        shown = f"keep ratio {self.amount}" if self.k is None else f"{self.k} tokens"
        return f"multiply-adds of {shown}" if self.multiply_adds else shown


OWN_SCHEDULE = "own schedule"
"""`Budget.label` of a schedule without a budget."""


def budget_of(keep_ratio: Any, k: Any, match: Any) -> Budget:
    """Return the budget of a line's columns, which may be None or NaN."""
    return Budget(
        None if is_empty(keep_ratio) else float(keep_ratio),
        None if is_empty(k) else int(k),
        match == "flops",
    )
