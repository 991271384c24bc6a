"""Tables of the files of a results folder, as data for the page."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.escape import flat as shown
from otprune_lmms.reporting.figures.data import Results
from otprune_lmms.reporting.statistics.averages import MEAN_OF_RATIOS
from otprune_lmms.reporting.tables import ReferenceCheck
from otprune_lmms.reporting.tables.layout import Entry, ResultsTable
from otprune_lmms.results.diagnostics import quantity
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.names import CONTROLS

_EMPTY = "–"
_ALL = "all"
_LEVEL = 0.05

_BEST = 6
"""Rows of the first screen, beside those of `_ALWAYS`."""

_ALWAYS = ("otprune", *CONTROLS)

_ROWS, _FOLDED_ROWS = 40, 12
"""Rows of a table, and of a folded one, that are part of the page from the start."""


@dataclass(frozen=True, slots=True)
class Field:
    """A cell of a table.

    Attributes:
        text: as shown.
        value: what it is sorted by.
        kind: "text"; "decided" for a p-value below 5 %; "good" and "bad" for reference checks; ""
            for other numbers.
    """

    text: str
    value: str = ""
    kind: Literal["", "text", "decided", "good", "bad"] = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of the page.

    Attributes:
        title: what it is.
        note: how it is read; may be empty.
        columns: headings; the first column names the row.
        rows: fields, as many as columns.
        folded: whether it is shown only when it is opened.
        file: of the folder that has the rows too.
    """

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Field, ...], ...]
    folded: bool = False
    file: str = ""

    @property
    def paged(self) -> bool:
        """Whether it has so many rows that a script shows some at a time."""
        return len(self.rows) > (_FOLDED_ROWS if self.folded else _ROWS)

    @property
    def data(self) -> list[list[list[str]]]:
        """Rows for the script: text, value and kind of each field."""
        return [[[shown(one.text), one.value, one.kind] for one in row] for row in self.rows]


SheetColumn = tuple[str, Callable[[Any], Field]]
"""Heading, and the field of a line (a named tuple of the frame)."""


def finding_sheets(table: ResultsTable) -> list[Sheet]:
    """Return for each model the mean of the ratios to the unpruned scores: methods by budgets.

    Rows are in the order of the first budget's scores; of many the best, OTPrune's and the
    controls. None for a model without pruned rows or without unpruned scores.
    """
    found = []
    places = [place for place, one in enumerate(table.columns) if one.rule == MEAN_OF_RATIOS]
    several = sum(1 for part in table.parts if part.blocks) > 1
    for part in table.parts:
        blocks = [block for block in part.blocks if block.kind == "retain"]
        known = [
            (place, row.name, row.entries[column])
            for place, block in enumerate(blocks)
            for row in block.rows
            for column in places
            if row.entries[column].value is not None
        ]
        shown_always = {row.name for block in blocks for row in block.rows if row.method in _ALWAYS}
        by_row: dict[str, dict[int, Entry]] = {}
        for place, name, entry in known:
            by_row.setdefault(name, {})[place] = entry
        if not by_row:
            continue
        ranked = sorted(by_row.items(), key=lambda one: _by_first(one[1], len(blocks)))
        rows = tuple(
            (_plain_text(name), *(_average(entries.get(place)) for place in range(len(blocks))))
            for rank, (name, entries) in enumerate(ranked)
            if rank < _BEST or name in shown_always
        )
        heads = ("setting", *(block.title for block in blocks))
        title = "Score in percent of unpruned" + (f", {part.model}" if several else "")
        few = f"{len(rows)} of {len(ranked)} rows: the best, OTPrune's and the controls."
        found.append(Sheet(title, few if len(rows) < len(ranked) else "", heads, rows))
    return found


def _by_first(entries: Mapping[int, Entry], count: int) -> list[float]:
    values = (entries[place].value if place in entries else None for place in range(count))
    return [math.inf if value is None else -value for value in values]


def _average(entry: Entry | None) -> Field:
    if entry is None or entry.value is None:
        return Field(_EMPTY)
    text = f"{entry.value:.1f}"
    if entry.low is not None and entry.high is not None:
        text += f" [{entry.low:.1f}, {entry.high:.1f}]"
    return Field(text, repr(entry.value), "decided" if entry.mark == "best" else "")


def statistics_sheets(results: Results) -> list[Sheet]:
    """Return the paired differences, those of the averages first; none where there are none."""
    return sorted(_pairs(results), key=lambda sheet: sheet.folded)


def reference_sheet(checks: Iterable[ReferenceCheck], several: bool) -> Sheet:
    """Return the unpruned scores beside their references, shown if there is any reference.

    Args:
        checks: of the unpruned scores.
        several: whether the run has several models.
    """
    lines = list(checks)
    columns: list[SheetColumn] = [("task", lambda one: _plain_text(benchmark(one.task).column))]
    columns += [("model", lambda one: _plain_text(one.model))] if several else []
    columns += [
        ("check", _status),
        ("unpruned", lambda one: _score(one.task, one.value)),
        ("reference", lambda one: _score(one.task, one.reference and one.reference.value)),
        ("tolerance", lambda one: _score(one.task, one.reference and one.reference.tolerance)),
        ("source", lambda one: _plain_text(one.reference.source if one.reference else _EMPTY)),
    ]
    return Sheet(
        "Unpruned scores against their references",
        "Where an unpruned score misses its reference, the pruned scores of that task are not to "
        "be trusted.",
        tuple(name for name, _ in columns),
        tuple(tuple(field(one) for _, field in columns) for one in lines),
        folded=all(one.status == "no reference" for one in lines),
    )


def _status(one: ReferenceCheck) -> Field:
    kinds: dict[str, Literal["good", "bad"]] = {"within": "good", "outside": "bad"}
    return Field(one.status, one.status, kinds.get(one.status, "text"))


def _score(task: str, value: float | None) -> Field:
    if value is None:
        return Field(_EMPTY)
    return Field(number(value, benchmark(task).digits), repr(value))


def analysis_sheets(results: Results) -> list[Sheet]:
    """Return correlations with distance, and agreement with the unpruned model."""
    found = results.optional("analysis.csv")
    if found is None or found.empty:
        return []
    whole = found[found["task"] == _ALL]
    spearman = whole[whole["analysis"] == "spearman"]
    loyal = whole[whole["analysis"] == "loyalty"]
    sheets = [
        _sheet(
            "Rank by distance against rank by score",
            "Spearman's correlation over methods, mean over benchmarks: positive where better "
            "values come with higher scores. p permutes the methods.",
            spearman,
            [*_model(results), ("quantity", _quantity), ("kept", _budget(results)),
             ("subjects", _text("subjects")), ("methods", _number("methods", 0)),
             ("ρ", _number("value", 2)), ("95 % interval", _interval(2)), ("p", _p("p"))],
            "analysis.csv",
        ),
        _sheet(
            "Agreement with the unpruned model's answers, %",
            "The same answer, letter by letter; mean over benchmarks without captions.",
            loyal,
            [*_model(results), ("setting", _name(results, "row")), ("%", _number("value", 1)),
             ("95 % interval", _interval(1))],
            "analysis.csv",
        ),
    ]  # fmt: skip
    return [sheet for sheet in sheets if sheet.rows]


def cost_sheets(results: Results) -> list[Sheet]:
    """Return measured times; none where they were not measured."""
    found = results.optional("cost.csv")
    if found is None or found.empty:
        return []
    times = [
        (name.removesuffix("_ms").replace("_", " ") + ", ms", _number(name, 2))
        for name in found.columns
        if name.endswith("_ms")
    ]
    batch = [("batch", _number("batch", 0))] if "batch" in found else []
    tokens = [("tokens", _number("kept_tokens", 0))] if "kept_tokens" in found else []
    columns = [*_model(results), ("setting", _name(results, "row")), *batch, *tokens, *times]
    note = "Medians over repeats, mean over samples; a batch's time divided by its samples."
    return [_sheet("Time of one answer", note, found, columns, "cost.csv")]


def _pairs(results: Results) -> Iterator[Sheet]:
    found = results.optional("pairs.csv")
    if found is None or found.empty:
        return
    for task, own in found.groupby("task", sort=False):
        whole = str(task).startswith(_ALL)
        head = None if whole else benchmark(str(task))
        digits = 1 if head is None else head.digits
        columns = [
            *_model(results), ("kept", _budget(results)), ("a", _name(results, "a")),
            ("b", _name(results, "b")),
            ("a − b", _number("difference", digits, signed=True)),
            ("95 % interval", _interval(digits, signed=True)), ("p", _p("p")),
            ("p (Holm)", _p("p_holm")), ("test", _text("test")),
            ("documents", _number("documents", 0)), ("discordant", _number("discordant", 0)),
        ]  # fmt: skip
        rule = str(task).partition(", ")[2] or "mean of ratios"
        name = f"relative average ({rule})" if head is None else head.column
        title = f"Paired differences: {name}"
        note = (
            "On the same documents. p (Holm) is corrected over the comparisons of its family; "
            "bold: below 5 %. The test of each line is named there."
        )
        yield _sheet(title, note, own, columns, "pairs.csv", folded=task != _ALL)


def _sheet(
    title: str,
    note: str,
    frame: Frame,
    columns: Sequence[SheetColumn],
    file: str,
    folded: bool = False,
) -> Sheet:
    lines = frame.itertuples(index=False)
    rows = tuple(tuple(field(line) for _, field in columns) for line in lines)
    return Sheet(title, note, tuple(name for name, _ in columns), rows, folded, file)


def _model(results: Results) -> list[SheetColumn]:
    return [("model", _text("model"))] if len(results.models) > 1 else []


def _plain_text(text: str) -> Field:
    return Field(text, text, "text")


def _text(name: str) -> Callable[[Any], Field]:
    def field(line: Any) -> Field:
        value = getattr(line, name)
        return _plain_text("" if pd.isna(value) else str(value))

    return field


def _name(results: Results, column: str) -> Callable[[Any], Field]:
    return lambda line: _plain_text(results.names.whole(getattr(line, column)))


def _number(name: str, digits: int, signed: bool = False) -> Callable[[Any], Field]:
    def field(line: Any) -> Field:
        value = getattr(line, name)
        return (
            Field(_EMPTY) if pd.isna(value) else Field(number(value, digits, signed), repr(value))
        )

    return field


def _p(name: str) -> Callable[[Any], Field]:
    def field(line: Any) -> Field:
        value = getattr(line, name)
        if pd.isna(value):
            return Field(_EMPTY)
        text = f"{value:.2g}" if value >= 1e-4 else "< 0.0001"
        decided = name == "p_holm" and value < _LEVEL
        return Field(text, repr(float(value)), "decided" if decided else "")

    return field


def _interval(digits: int, signed: bool = False) -> Callable[[Any], Field]:
    def field(line: Any) -> Field:
        if pd.isna(line.low) or pd.isna(line.high):
            return Field(_EMPTY)
        low, high = number(line.low, digits, signed), number(line.high, digits, signed)
        return Field(f"[{low}, {high}]", repr(float(line.low)))

    return field


def _quantity(line: Any) -> Field:
    return _plain_text(quantity(line.quantity).name)


def _budget(results: Results) -> Callable[[Any], Field]:
    """Return the field of a budget, which sorts by its number where it is a plain budget."""

    def field(line: Any) -> Field:
        budget = results.budgets.get(line.budget)
        number = None if budget is None else budget.k or budget.keep_ratio
        return Field(line.budget, line.budget if number is None else f"{number:g}", "text")

    return field


def number(value: float, digits: int, signed: bool = False) -> str:
    """Return a number as text, with a true minus sign; "–" for none."""
    if value is None or math.isnan(value):
        return _EMPTY
    plain = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if not plain.strip("+-0."):
        plain = plain.lstrip("+-")
    return plain.replace("-", "−")


def facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what was run, as names and values."""
    found = [(str(name), str(value)) for name, value in (manifest.get("origin") or {}).items()]
    found += [(f"model {name}", f"weights {value}") for name, value in _plain(manifest, "models")]
    found += [(f"version of {name}", str(value)) for name, value in _plain(manifest, "versions")]
    for task, data in _plain(manifest, "data"):
        described = "; ".join(f"{name} {value}" for name, value in dict(data).items())
        found.append((f"data {task}", described))
    for one in manifest.get("failed") or ():
        found.append((f"left out of {one['task']}", f"document {one['doc_id']}: {one['reason']}"))
    return found


def _plain(manifest: Mapping[str, Any], name: str) -> Sequence[tuple[str, Any]]:
    return tuple((manifest.get(name) or {}).items())
