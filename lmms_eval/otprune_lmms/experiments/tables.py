"""Tidy records of an experiment, and the tables made of them: terminal, Markdown, CSV."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
from rich import box
from rich.table import Table

from otprune_lmms.benchmarks import Headline, headline

COLUMNS = [
    "experiment",
    "suite",
    "model",
    "cell",
    "method",
    "keep_ratio",
    "k",
    "layer",
    "seed",
    "row",
    "task",
    "metric",
    "value",
    "missing",
    "documents",
    "kept_tokens",
    "visual_tokens",
]
"""Columns of the records: one line for each model, cell, task and metric.

``row`` names the table's row: the cell without its seed. ``value`` is empty where ``missing`` says
why. ``kept_tokens`` and ``visual_tokens`` are means over the images of the task.
"""

RULE = "mean over tasks of score / unpruned score"
_EMPTY = "–"
_Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class Wide:
    """The table of an experiment.

    Attributes:
        title: says what was run, and of the mini suite that it is not the benchmarks themselves.
        columns: headings.
        rows: values of each row; None where there is none.
        digits: decimals of each numeric column.
        notes: what a reader must know.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    digits: Mapping[str, int]
    notes: tuple[str, ...]


def frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return records as a frame with all columns, in their order."""
    return pd.DataFrame(records, columns=COLUMNS)


def read_records(path: Path) -> pd.DataFrame:
    """Return the records of a ``records.csv``.

    Raises:
        ValueError: no such file, or other columns than ours.
    """
    if not path.is_file():
        raise ValueError(f"no records at {path}")
    # As text first: not every version of pandas reads the last digit of a number right.
    records = pd.read_csv(path, dtype={"value": str})
    if list(records.columns) != COLUMNS:
        raise ValueError(f"{path} must have the columns {', '.join(COLUMNS)}")
    return records.astype({"value": float})


def wide(records: pd.DataFrame, title: str) -> Wide:
    """Return the table of one row a setting and one column a task.

    Seeds of one setting are averaged. The relative score is the mean over tasks of score / unpruned
    score of the same model, in percent, over the tasks that have both.

    Raises:
        ValueError: no records.
    """
    lines = _lines(records)
    if not lines:
        raise ValueError("a table needs records")
    tasks = {
        task: headline(task, _distinct(line["metric"] for line in some))
        for (task,), some in _groups(lines, "task").items()
    }
    scores = _scores(lines, tasks)
    several = len(_groups(lines, "model")) > 1
    rows = []
    for (model, row), some in _groups(lines, "model", "row").items():
        base = scores.get((model, "unpruned"), {})
        own = scores[model, row]
        shown = [None if task not in own else own[task] * h.scale for task, h in tasks.items()]
        kept = [many[0]["kept_tokens"] for many in _groups(some, "cell", "task").values()]
        cells = [_mean(kept), *shown, relative(own, base)]
        rows.append(tuple([model, row, *cells] if several else [row, *cells]))
    heads = [h.column for h in tasks.values()]
    names = (["model"] if several else []) + ["setting", "tokens", *heads, "relative %"]
    digits = dict(zip(heads, (h.digits for h in tasks.values()), strict=True))
    return Wide(
        _title(lines, title),
        tuple(names),
        tuple(rows),
        {**digits, "tokens": 1, "relative %": 1},
        tuple(_notes(lines, tasks, scores)),
    )


def relative(own: Mapping[str, float], base: Mapping[str, float]) -> float | None:
    """Return the mean over tasks of own / base in percent; None where nothing can be compared."""
    ratios = [own[task] / base[task] for task in own if base.get(task)]
    return 100 * sum(ratios) / len(ratios) if ratios else None


def published(rows: Sequence[Any], records: pd.DataFrame) -> str:
    """Return numbers from papers as a Markdown table of its own, "" without any."""
    if not rows:
        return ""
    tasks = list(dict.fromkeys(records["task"]))
    heads = [headline(task, ["-"]).column for task in tasks]
    lines = ["", "## As published (not run here)", ""]
    lines += [f"| source | model | row | {' | '.join(heads)} |", "|---" * (3 + len(heads)) + "|"]
    for row in rows:
        cells = [f"{row.scores[task]:g}" if task in row.scores else _EMPTY for task in tasks]
        lines.append(f"| {row.source} | {row.model} | {row.row} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def markdown(table: Wide, origin: Mapping[str, str]) -> str:
    """Return the table as a page that opens with where the numbers come from."""
    lines = [f"# {table.title}", ""]
    lines += [f"{name}: `{value}`  " for name, value in origin.items()]
    lines += ["", f"| {' | '.join(table.columns)} |", "|---" * len(table.columns) + "|"]
    lines += [f"| {' | '.join(cells)} |" for cells in _shown(table)]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def csv(table: Wide) -> str:
    """Return the table as CSV, all digits."""
    return pd.DataFrame(table.rows, columns=list(table.columns)).to_csv(index=False)


def terminal(table: Wide) -> Table:
    """Return the table for a terminal."""
    drawn = Table(title=table.title, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in table.columns:
        text = column in ("model", "setting")
        drawn.add_column(column, justify="left" if text else "right", no_wrap=True)
    for cells in _shown(table):
        drawn.add_row(*cells)
    return drawn


def _shown(table: Wide) -> list[list[str]]:
    def text(column: str, value: Any) -> str:
        if value is None:
            return _EMPTY
        return value if isinstance(value, str) else f"{value:.{table.digits[column]}f}"

    return [
        [text(column, value) for column, value in zip(table.columns, row, strict=True)]
        for row in table.rows
    ]


def _lines(records: pd.DataFrame) -> _Lines:
    """Return records as plain dicts, None where they are empty."""
    plain = records.astype(object).where(records.notna(), None)
    return cast(_Lines, plain.to_dict("records"))


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _groups(lines: _Lines, *columns: str) -> dict[tuple[Any, ...], _Lines]:
    """Return the lines by their values in some columns, in order of first appearance."""
    found: dict[tuple[Any, ...], _Lines] = {}
    for line in lines:
        found.setdefault(tuple(line[column] for column in columns), []).append(line)
    return found


def _scores(
    lines: _Lines, tasks: Mapping[str, Headline]
) -> dict[tuple[str, str], dict[str, float]]:
    """Return each row's headline value of each task, seeds averaged; none unless all have one."""
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for (model, row), some in _groups(lines, "model", "row").items():
        found = scores.setdefault((model, row), {})
        for (task,), many in _groups(some, "task").items():
            metric = tasks[task].metric
            values = [line["value"] for line in many if line["metric"] == metric]
            if values and None not in values:
                found[task] = sum(values) / len(values)
    return scores


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def _title(lines: _Lines, title: str) -> str:
    if all(line["suite"] == "mini" for line in lines):
        return f"{title} (mini suite: embedded data, not the paper's benchmarks)"
    return title


def _notes(
    lines: _Lines,
    tasks: Mapping[str, Headline],
    scores: Mapping[tuple[str, str], Mapping[str, float]],
) -> list[str]:
    def unit(task: str, head: Headline) -> str:
        return f"{head.column} = {task} {head.metric}" + (" x 100" if head.scale == 100 else "")

    notes = ["; ".join(unit(task, head) for task, head in tasks.items())]
    notes.append(f"relative %: {RULE} of the same model; tokens: kept a picture, mean")
    for (row,), some in _groups(lines, "row").items():
        seeds = len(_distinct(line["seed"] for line in some if line["seed"] is not None))
        notes += [f"{row}: mean of {seeds} seeds"] if seeds > 1 else []
    for (reason,), some in _groups(lines, "missing").items():
        if reason is not None:
            names = ", ".join(_distinct(line["task"] for line in some))
            notes.append(f"not computed ({reason}): {names}; relative % leaves them out")
    counts = [
        f"{task} {max(line['documents'] for line in some)}"
        for (task,), some in _groups(lines, "task").items()
    ]
    notes.append("documents: " + ", ".join(counts))
    whole = [found for (_, row), found in scores.items() if row == "unpruned"]
    zero = _distinct(task for found in whole for task, value in found.items() if not value)
    if zero:
        notes.append(f"unpruned scores 0 on {', '.join(zero)}; relative % leaves them out")
    return notes
