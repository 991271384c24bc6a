"""The columns of a table, and the number that a row has in each.

A new column is a `Column` in `columns_of` with its explanation. One that shows the mean of a column
of the records names it (``records``); any other has its number in `Numbers`.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from otprune_lmms.benchmarks import Benchmark, benchmark
from otprune_lmms.reporting.statistics.answers import QUANTITIES
from otprune_lmms.reporting.statistics.averages import (
    MEAN_OF_RATIOS,
    RATIO_OF_MEANS,
    average_rank,
    headline_scores,
    mean_of_ratios,
    ratio_of_means,
    ratio_of_means_name,
    shared_tasks,
)
from otprune_lmms.reporting.tables.intervals import Interval, Intervals
from otprune_lmms.reporting.tables.layout import MISSING, NOT_RUN, Column, Entry, TableRow
from otprune_lmms.reporting.tables.prefill import PrefillCost
from otprune_lmms.reporting.tables.settings import RowSetting
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.records import UNPRUNED, Convention

TOKENS = "tokens"
LAYER_MEAN = "tokens, mean over layers"
RANK = "average rank"
AVERAGE = {
    MEAN_OF_RATIOS: mean_of_ratios,
    RATIO_OF_MEANS: ratio_of_means,
}
"""The relative averages by the name of their rule."""

SHARE = "MAC %"
_UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6))


def heads_of(records: Frame, planned: Sequence[str]) -> dict[str, Benchmark]:
    """Return the record of each task: planned tasks in their order, then others of the records.

    A planned task that was not run is among them.
    """
    metrics = {
        str(task): list(dict.fromkeys(some["metric"]))
        for task, some in records.groupby("task", sort=False)
    }
    # Of a task without records nothing is known; the stand-in has no value anywhere.
    tasks = dict.fromkeys([*planned, *metrics])
    return {task: benchmark(task, metrics.get(task, ["-"])) for task in tasks}


def columns_of(
    heads: Mapping[str, Benchmark],
    cost: tuple[Column, ...],
    layers: bool = False,
    quantities: Sequence[str] = (),
) -> tuple[Column, ...]:
    """Return all columns: tokens, cost if known, scores, relative averages, rank.

    Args:
        heads: records of the tasks.
        cost: columns of cost.
        layers: whether budgets are about all layers, so that their mean is a column.
        quantities: of the answers, of `statistics.answers.QUANTITIES`; at the end.

    Raises:
        ValueError: an unknown quantity.
    """
    unknown = [name for name in quantities if name not in QUANTITIES]
    if unknown:
        raise ValueError(f"quantities must be of {', '.join(QUANTITIES)}; got {unknown[0]!r}")
    names = [head.column for head in heads.values()]
    scores = [
        # Two tasks may stand for one benchmark; then their ids are the headings.
        Column(head.column if names.count(head.column) == 1 else task, "score", head.digits, task)
        for task, head in heads.items()
    ]
    divided = "".join(
        f", {' '.join(filter(None, (one.title, one.counted)))} / {one.ratio_divisor:g}"
        for one in heads.values()
        if one.ratio_divisor != 1
    )
    relative = [
        Column(
            "mean of ratios",
            "relative",
            rule=MEAN_OF_RATIOS,
            explanation="mean over tasks of score / unpruned score of the same model, in percent",
        ),
        Column(
            ratio_of_means_name(heads),
            "relative",
            rule=RATIO_OF_MEANS,
            explanation=f"mean score / mean unpruned score{divided}, in percent",
        ),
    ]
    rank = Column(
        RANK,
        "rank",
        2,
        explanation="mean over tasks of the rank among the pruned rows of the block, 1 the best, "
        "ties share",
    )
    tokens = [
        Column(TOKENS, "plain", records="kept_tokens", explanation="kept of an image, mean"),
        *([Column(LAYER_MEAN, "plain")] if layers else []),
    ]
    more = [
        Column(name.replace("_", " "), "plain", quantity=name, explanation=QUANTITIES[name])
        for name in dict.fromkeys(quantities)
    ]
    return (*tokens, *cost, *scores, *relative, rank, *more)


def cost_columns(
    costs: Iterable[PrefillCost], convention: Convention
) -> tuple[tuple[Column, ...], float]:
    """Return the columns of cost, none where nothing is known, and the unit of the first.

    The unit is the largest of tera, giga and mega in which the largest cost is at least 0.1.
    """
    known = [cost.multiply_adds for cost in costs if cost.multiply_adds is not None]
    if not known:
        return (), 1.0
    most = max(known)
    prefix, unit = next((one for one in _UNITS if most >= 0.1 * one[1]), _UNITS[-1])
    return (Column(f"{prefix}MAC ({convention})", "cost", 3), Column(SHARE, "cost", 2)), unit


@dataclass
class Numbers:
    """The numbers that fill the rows of a table.

    Attributes:
        records: of the experiment.
        intervals: of scores and averages.
        costs: of the prefill, by (model, row).
        unit: what multiply-adds are divided by.
        doubted: by model, the tasks whose unpruned score fails its reference check.
        scores: by (model, row) and task, as shown; NaN where there is none.
        by_seed: the same by (model, setting): one seed each.
        stale: rows whose intervals are of other records, and are left out.
    """

    records: Frame
    intervals: Intervals
    costs: Mapping[tuple[str, str], PrefillCost]
    unit: float
    doubted: Mapping[str, frozenset[str]]
    scores: Frame = field(init=False)
    by_seed: Frame = field(init=False)
    stale: set[tuple[str, str]] = field(init=False, default_factory=set)
    _by_row: dict[Any, Frame] = field(init=False)

    def __post_init__(self) -> None:
        """Compute the scores, and find the records of each row."""
        self.scores = headline_scores(self.records)
        self.by_seed = headline_scores(self.records.assign(row=self.records["setting"]))
        # One line a metric: counts are the same in all lines of a setting and task.
        once = self.records.drop_duplicates(["model", "row", "setting", "task"])
        self._by_row = dict(list(once.groupby(["model", "row"], sort=False)))

    def row(self, setting: RowSetting, columns: Sequence[Column]) -> TableRow:
        """Return a row with all but its rank."""
        return TableRow(
            label=setting.row,
            name=setting.name.short,
            whole=setting.name.whole,
            entries=tuple(self._entry(setting, column) for column in columns),
            method=setting.method,
            keep_ratio=setting.budget.keep_ratio,
            k=setting.budget.k,
            layer=setting.layer,
            seeds=max(1, len(setting.seeds)),
            visual_tokens=self.mean(setting, "visual_tokens"),
        )

    def ranks(self, settings: Sequence[RowSetting]) -> list[float | None]:
        """Return each setting's average rank among those that were run; None for a single one."""
        rows = [one.key for one in settings if one.seeds]
        if len(rows) < 2:
            return [None] * len(settings)
        found = average_rank(self.scores.loc[rows])
        return [_plain(found.get(one.key)) if one.seeds else None for one in settings]

    def compared(self, setting: RowSetting) -> frozenset[str]:
        """Return the tasks that enter the relative averages of a setting."""
        own, base = self._series(setting.model, setting.row), self._base(setting.model)
        if own is None or base is None:
            return frozenset()
        return frozenset(shared_tasks(own, base))

    def mean(self, setting: RowSetting, column: str) -> float | None:
        """Return the mean of a column of the records over a setting's tasks and seeds.

        Every task and seed that has a number counts the same, whatever its documents; None where
        there is no number.
        """
        if setting.key not in self._by_row:
            return None
        return _plain(self._by_row[setting.key][column].astype(float).mean())

    def layer_tokens(self, setting: RowSetting) -> float | None:
        """Return the tokens of an image that enter a layer, mean over layers and tasks."""
        cost = self.costs.get(setting.key)
        return None if cost is None else cost.layer_tokens

    def _entry(self, setting: RowSetting, column: Column) -> Entry:
        if not setting.seeds:
            return Entry(empty=NOT_RUN)
        if column.kind == "score":
            return self._score(setting, column)
        if column.rule is not None:
            return self._relative(setting, column.rule)
        if column.quantity is not None:
            found = self.intervals.answers.get((*setting.key, column.quantity))
            return Entry() if found is None else Entry(found.value, low=found.low, high=found.high)
        if column.records is not None:
            return Entry(self.mean(setting, column.records))
        if column.name == LAYER_MEAN:
            return Entry(self.layer_tokens(setting))
        cost = self.costs.get(setting.key)
        if column.kind != "cost" or cost is None or cost.multiply_adds is None:
            return Entry()
        return Entry(cost.share if column.name == SHARE else cost.multiply_adds / self.unit)

    def _score(self, setting: RowSetting, column: Column) -> Entry:
        task = column.task or ""
        value = _plain(self.scores.at[setting.key, task]) if task in self.scores else None
        each = [self._of_seed(setting.model, seed, task) for seed in setting.seeds]
        low, high = self._interval(setting, value, self.intervals.scores.get((*setting.key, task)))
        return Entry(
            value,
            empty=MISSING if task in setting.tasks else NOT_RUN,
            low=low,
            high=high,
            spread=_spread(each),
            doubted=task in self.doubted.get(setting.model, frozenset()),
        )

    def _relative(self, setting: RowSetting, rule: str) -> Entry:
        own, base = self._series(*setting.key), self._base(setting.model)
        if own is None or base is None:
            return Entry()
        several = setting.seeds if len(setting.seeds) > 1 else ()
        each = [
            _plain(AVERAGE[rule](self.by_seed.loc[(setting.model, seed)], base)) for seed in several
        ]
        value = _plain(AVERAGE[rule](own, base))
        pruned = setting.row != UNPRUNED
        # The unpruned model's average is 100 by definition.
        interval = self.intervals.averages.get((*setting.key, rule)) if pruned else None
        low, high = self._interval(setting, value, interval)
        doubted = self.doubted.get(setting.model, frozenset())
        return Entry(
            value,
            low=low,
            high=high,
            spread=_spread(each),
            doubted=not doubted.isdisjoint(self.compared(setting)),
        )

    def _interval(
        self, setting: RowSetting, value: float | None, interval: Interval | None
    ) -> tuple[float | None, float | None]:
        """Return both ends of a number's interval, None where there is none of this number."""
        if value is None or interval is None:
            return None, None
        if not interval.of(value):
            self.stale.add(setting.key)
            return None, None
        return interval.low, interval.high

    def _series(self, model: str, row: str) -> Frame | None:
        return self.scores.loc[(model, row)] if (model, row) in self.scores.index else None

    def _base(self, model: str) -> Frame | None:
        return self._series(model, UNPRUNED)

    def _of_seed(self, model: str, seed: str, task: str) -> float | None:
        return _plain(self.by_seed.at[(model, seed), task]) if task in self.by_seed else None


def _plain(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _spread(values: Sequence[float | None]) -> float | None:
    """Return the standard deviation of a sample of seeds; None unless all of several are there."""
    found = [value for value in values if value is not None]
    if len(found) < 2 or len(found) < len(values):
        return None
    return statistics.stdev(found)
