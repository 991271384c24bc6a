"""The numbers of each row, from records, statistics and cost."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from otprune_lmms.reporting.statistics import averages
from otprune_lmms.reporting.tables.columns import AVERAGE, MEAN, SHARE, TOKENS
from otprune_lmms.reporting.tables.cost import Cost
from otprune_lmms.reporting.tables.intervals import Interval, Intervals
from otprune_lmms.reporting.tables.layout import MISSING, NOT_RUN, Column, Entry, Row
from otprune_lmms.reporting.tables.settings import Setting
from otprune_lmms.results.records import UNPRUNED


@dataclass
class Numbers:
    """What the rows of a table are filled with.

    Attributes:
        records: of the experiment.
        scores: by (model, row) and task, as shown; NaN where there is none.
        by_cell: the same by (model, cell): one seed each.
        intervals: of scores and averages.
        costs: by (model, row).
        unit: what a cost is divided by.
        means: tokens of an image that enter a layer, mean over layers, by (model, row).
        doubted: tasks on which a model's unpruned score is not where it should be.
        stale: rows whose intervals are of other records, and are left out.
    """

    records: pd.DataFrame
    intervals: Intervals
    costs: Mapping[tuple[str, str], Cost]
    unit: float
    doubted: Mapping[str, frozenset[str]]
    means: Mapping[tuple[str, str], float | None] = field(default_factory=dict)
    scores: pd.DataFrame = field(init=False)
    by_cell: pd.DataFrame = field(init=False)
    stale: set[tuple[str, str]] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        """Compute the scores."""
        self.scores = averages.scores(self.records)
        self.by_cell = averages.scores(self.records.assign(row=self.records["setting"]))

    def row(self, setting: Setting, columns: Sequence[Column]) -> Row:
        """Return a row with all but its rank."""
        return Row(
            label=setting.label,
            name=setting.name,
            entries=tuple(self._entry(setting, column) for column in columns),
            method=setting.method,
            keep_ratio=setting.keep_ratio,
            k=setting.k,
            layer=setting.layer,
            seeds=max(1, len(setting.cells)),
            visual_tokens=setting.visual,
        )

    def ranks(self, settings: Sequence[Setting]) -> list[float | None]:
        """Return each setting's average rank among those that were run; None without a contest."""
        places = [(one.model, one.label) for one in settings if one.cells]
        if len(places) < 2:
            return [None] * len(settings)
        found = averages.average_rank(self.scores.loc[places])
        return [
            _plain(found.get((one.model, one.label))) if one.cells else None for one in settings
        ]

    def compared(self, setting: Setting) -> frozenset[str]:
        """Return the tasks that enter the relative averages of a setting."""
        own, base = self._series(setting.model, setting.label), self._base(setting.model)
        if own is None or base is None:
            return frozenset()
        return frozenset(averages.shared_tasks(own, base))

    def _entry(self, setting: Setting, column: Column) -> Entry:
        if not setting.cells:
            return Entry(empty=NOT_RUN)
        if column.kind == "score":
            return self._score(setting, column)
        if column.rule is not None:
            return self._relative(setting, column.rule)
        if column.name == TOKENS:
            return Entry(setting.kept)
        if column.name == MEAN:
            return Entry(self.means.get((setting.model, setting.label)))
        cost = self.costs.get((setting.model, setting.label))
        if column.kind != "cost" or cost is None:
            return Entry()
        return Entry(cost.share if column.name == SHARE else cost.multiply_adds / self.unit)

    def _score(self, setting: Setting, column: Column) -> Entry:
        task = column.task or ""
        value = (
            _plain(self.scores.at[(setting.model, setting.label), task])
            if (task in self.scores)
            else None
        )
        each = [self._of_cell(setting.model, cell, task) for cell in setting.cells]
        return self._with_interval(
            setting,
            value,
            self.intervals.scores.get((setting.model, setting.label, task)),
            empty=MISSING if task in setting.tasks else NOT_RUN,
            spread=_spread(each),
            doubted=task in self.doubted.get(setting.model, frozenset()),
        )

    def _relative(self, setting: Setting, rule: str) -> Entry:
        own, base = self._series(setting.model, setting.label), self._base(setting.model)
        if own is None or base is None:
            return Entry()
        several = setting.cells if len(setting.cells) > 1 else ()
        each = [
            _plain(AVERAGE[rule](self.by_cell.loc[(setting.model, cell)], base)) for cell in several
        ]
        doubted = self.doubted.get(setting.model, frozenset())
        return self._with_interval(
            setting,
            _plain(AVERAGE[rule](own, base)),
            # Of the unpruned model the average is 100 by definition.
            None
            if setting.label == UNPRUNED
            else self.intervals.averages.get((setting.model, setting.label, rule)),
            spread=_spread(each),
            doubted=not doubted.isdisjoint(self.compared(setting)),
        )

    def _with_interval(
        self, setting: Setting, value: float | None, interval: Interval | None, **rest: object
    ) -> Entry:
        low = high = None
        if value is not None and interval is not None:
            if interval.of(value):
                low, high = interval.low, interval.high
            else:
                self.stale.add((setting.model, setting.label))
        return Entry(value, low=low, high=high, **rest)  # type: ignore[arg-type]

    def _series(self, model: str, row: str) -> pd.Series | None:
        return self.scores.loc[(model, row)] if (model, row) in self.scores.index else None

    def _base(self, model: str) -> pd.Series | None:
        return self._series(model, UNPRUNED)

    def _of_cell(self, model: str, cell: str, task: str) -> float | None:
        return _plain(self.by_cell.at[(model, cell), task]) if task in self.by_cell else None


def _plain(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _spread(values: Sequence[float | None]) -> float | None:
    """Return the standard deviation of a sample of seeds; None unless all of several are there."""
    found = [value for value in values if value is not None]
    if len(found) < 2 or len(found) < len(values):
        return None
    return statistics.stdev(found)
