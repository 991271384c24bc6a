"""The lines of the leaderboard: what a results folder says of each of its settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from otprune_lmms.files import is_file
from otprune_lmms.reporting.statistics.averages import MEAN_OF_RATIOS
from otprune_lmms.reporting.statistics.compare import ALL
from otprune_lmms.reporting.tables import make_table, read_intervals
from otprune_lmms.reporting.tables.columns import SHARE, TOKENS
from otprune_lmms.reporting.tables.layout import Entry, ResultsTable, TableRow
from otprune_lmms.results.checked import Column, Kind, read_csv
from otprune_lmms.results.costs import COST_TABLE
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import Manifest, read_manifest
from otprune_lmms.results.names import CONTROLS
from otprune_lmms.results.records import RECORDS, read_records

BEATS = ("random", "downsample")
"""Controls against which a line says whether its setting is better."""

_LEVEL = 0.05
"""Of a test, after Holm."""

_SPEED = ("answer_speedup", "answer_speedup_low", "answer_speedup_high")
_TEXT, _NUMBER = Column(Kind.TEXT), Column(Kind.NUMBER, empty=True)
_PAIR_COLUMNS = {
    **dict.fromkeys(("model", "task", "a", "b"), _TEXT),
    **dict.fromkeys(("difference", "p_holm"), _NUMBER),
}
_COST_COLUMNS = {
    **dict.fromkeys(("model", "row"), _TEXT),
    **dict.fromkeys(("batch", *_SPEED), Column(Kind.NUMBER, empty=True, needed=False)),
}


class Number(NamedTuple):
    """A number with its 95 % interval, in the unit of its column; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One setting of one model in one results folder.

    Attributes:
        folder: name of the results folder.
        suite: "mini", "hub", or the folder of the experiment's own tasks.
        model: that answered.
        setting: label of the row, for links.
        name: what readers are shown.
        method: None for the unpruned model.
        control: whether the method is one of `results.names.CONTROLS`.
        share: kept visual tokens / all, in percent.
        tokens: kept of an image, mean.
        multiply_adds: percent of the unpruned model's.
        average: mean over tasks of score / unpruned score, in percent.
        scores: by heading of the task.
        speedup: of a whole answer of one request, measured; None where it was not.
        better: by control, whether the average is better than the control's at the same budget, in
            a paired test (Holm, 0.05): True, False (worse), None (not separated); a control that
            was not tested against is not there.
        seeds: how many were averaged.
    """

    folder: str
    suite: str
    model: str
    setting: str
    name: str
    method: str | None
    control: bool
    share: float | None
    tokens: float | None
    multiply_adds: float | None
    average: Number
    scores: Mapping[str, Number]
    speedup: Number | None
    better: Mapping[str, bool | None]
    seeds: int


@dataclass(frozen=True, slots=True)
class Source:
    """A results folder of the leaderboard.

    Attributes:
        name: of the folder.
        manifest: of its run.
        lines: its settings.
        digits: decimals of each task's scores, by heading.
    """

    name: str
    manifest: Manifest
    lines: tuple[Line, ...]
    digits: Mapping[str, int]


def read_source(folder: Path) -> Source:
    """Return what a results folder says of its settings.

    Reads ``records.csv`` and ``manifest.json``; ``averages.csv`` and ``intervals.csv`` for
    intervals, ``pairs.csv`` for tests and ``cost.csv`` for measured times, where they are.

    Raises:
        ValueError: no records or manifest, or of another format.
    """
    records, manifest = read_records(folder / RECORDS), read_manifest(folder)
    table = make_table(records, manifest, intervals=read_intervals(folder))
    known = _Known(
        folder.name, str(records["suite"].iloc[0]), table, _pairs(folder), _times(folder)
    )
    lines = (_line(known, part.model, row) for part, _, row in table.ours())
    there = tuple(line for line in lines if line.average.value is not None)
    digits = {one.name: one.digits for one in table.columns if one.kind == "score"}
    return Source(folder.name, manifest, there, digits)


@dataclass(frozen=True)
class _Known:
    """A results folder, read."""

    folder: str
    suite: str
    table: ResultsTable
    pairs: Frame | None
    speedups: Mapping[tuple[str, str], Number]

    @cached_property
    def _labels(self) -> Mapping[tuple, str]:
        """The rows that prune before the language model, by model, method and budget."""
        return {
            (part.model, row.method, row.keep_ratio, row.k): row.label
            for part, _, row in self.table.ours()
            if row.layer == 0
        }

    def better(self, model: str, row: TableRow) -> dict[str, bool | None]:
        """Return what the paired tests against the controls of the same budget say of a row."""
        found = {}
        for name in BEATS:
            control = self._labels.get((model, name, row.keep_ratio, row.k))
            test = None if control in (None, row.label) else self._test(model, row.label, control)
            if test is not None:
                decided = float(test["p_holm"].iloc[0]) < _LEVEL
                sign = 1 if test["a"].iloc[0] == row.label else -1
                ahead = sign * float(test["difference"].iloc[0]) > 0
                found[name] = ahead if decided else None
        return found

    def _test(self, model: str, row: str, other: str | None) -> Frame | None:
        """Return the test of two rows' averages, a - b; None where there was none."""
        if self.pairs is None:
            return None
        own = self.pairs[
            (self.pairs["model"] == model) & (self.pairs["task"] == ALL[MEAN_OF_RATIOS])
        ]
        there, back = (
            (own["a"] == row) & (own["b"] == other),
            (own["a"] == other) & (own["b"] == row),
        )
        found = own[there | back]
        return None if found.empty else found


def _line(known: _Known, model: str, row: TableRow) -> Line:
    entries = list(zip(known.table.columns, row.entries, strict=True))
    by_name = {column.name: entry for column, entry in entries}
    tokens, visual = by_name[TOKENS].value, row.visual_tokens
    return Line(
        folder=known.folder,
        suite=known.suite,
        model=model,
        setting=row.label,
        name=row.whole,
        method=row.method,
        control=row.method in CONTROLS,
        share=100 * tokens / visual if tokens is not None and visual else None,
        tokens=tokens,
        multiply_adds=by_name.get(SHARE, Entry()).value,
        average=next(_number(one) for column, one in entries if column.rule == MEAN_OF_RATIOS),
        scores={column.name: _number(one) for column, one in entries if column.kind == "score"},
        speedup=known.speedups.get((model, row.label)),
        better=known.better(model, row),
        seeds=row.seeds,
    )


def _number(entry: Entry) -> Number:
    return Number(entry.value, entry.low, entry.high)


def _pairs(folder: Path) -> Frame | None:
    path = folder / "pairs.csv"
    return read_csv(path, _PAIR_COLUMNS) if is_file(path) else None


def _times(folder: Path) -> dict[tuple[str, str], Number]:
    """Return how many times as fast an answer of one request is, by model and row.

    Earlier versions measured no interval of it; their times are left out.
    """
    if not is_file(folder / COST_TABLE):
        return {}
    costs = read_csv(folder / COST_TABLE, _COST_COLUMNS)
    if not set(_SPEED) <= set(costs.columns):
        return {}
    costs = costs[(costs["batch"] == 1) & costs["answer_speedup"].notna()]
    columns = (costs[name] for name in ("model", "row", *_SPEED))
    return {
        (model, row): Number(float(value), float(low), float(high))
        for model, row, value, low, high in zip(*columns, strict=True)
    }
