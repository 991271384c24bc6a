"""Tidy records of an experiment, and the tables made of them: terminal, Markdown, CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    records = pd.read_csv(path, float_precision="round_trip", keep_default_na=True)
    if list(records.columns) != COLUMNS:
        raise ValueError(f"{path} must have the columns {', '.join(COLUMNS)}")
    return records


def wide(records: pd.DataFrame, title: str) -> Wide:
    """Return the table of one row a setting and one column a task.

    Seeds of one setting are averaged. The relative score is the mean over tasks of score / unpruned
    score of the same model, in percent, over the tasks that have both.

    Raises:
        ValueError: no records.
    """
    if records.empty:
        raise ValueError("a table needs records")
    tasks = {
        task: headline(task, list(dict.fromkeys(some["metric"])))
        for task, some in records.groupby("task", sort=False)
    }
    scores = _scores(records, tasks)
    several = records["model"].nunique() > 1
    rows = []
    for (model, row), cells in records.groupby(["model", "row"], sort=False):
        base = scores.get((model, "unpruned"), {})
        own = scores[model, row]
        shown = [None if task not in own else own[task] * h.scale for task, h in tasks.items()]
        budget = cells.drop_duplicates(["cell", "task"])
        kept = [_mean(budget["kept_tokens"]), *shown, relative(own, base)]
        rows.append(tuple([model, row, *kept] if several else [row, *kept]))
    heads = [h.column for h in tasks.values()]
    names = (["model"] if several else []) + ["setting", "tokens", *heads, "relative %"]
    digits = dict(zip(heads, (h.digits for h in tasks.values()), strict=True))
    return Wide(
        _title(records, title),
        tuple(names),
        tuple(rows),
        {**digits, "tokens": 1, "relative %": 1},
        tuple(_notes(records, tasks, scores)),
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
    drawn.caption = "\n".join(table.notes)
    drawn.caption_justify = "left"
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


def _scores(
    records: pd.DataFrame, tasks: Mapping[str, Headline]
) -> dict[tuple[str, str], dict[str, float]]:
    """Return each row's headline value of each task, seeds averaged."""
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for (model, row), some in records.groupby(["model", "row"], sort=False):
        found = scores.setdefault((str(model), str(row)), {})
        for task, head in tasks.items():
            values = some[(some["task"] == task) & (some["metric"] == head.metric)]["value"]
            mean = _mean(values)
            if mean is not None and not values.isna().any():
                found[task] = mean
    return scores


def _mean(values: pd.Series) -> float | None:
    return None if values.dropna().empty else float(values.mean())


def _title(records: pd.DataFrame, title: str) -> str:
    if (records["suite"] == "mini").all():
        return f"{title} (mini suite: embedded data and model, not the paper's benchmarks)"
    return title


def _notes(
    records: pd.DataFrame, tasks: Mapping[str, Headline], scores: Mapping[Any, Mapping[str, float]]
) -> list[str]:
    def unit(task: str, head: Headline) -> str:
        return f"{head.column} = {task} {head.metric}" + (" x 100" if head.scale == 100 else "")

    notes = ["; ".join(unit(task, head) for task, head in tasks.items())]
    notes.append(f"relative %: {RULE} of the same model; tokens: kept a picture, mean")
    seeds = records.dropna(subset=["seed"]).groupby("row")["seed"].nunique()
    notes += [f"{row}: mean of {count} seeds" for row, count in seeds.items() if count > 1]
    for reason, some in records.dropna(subset=["missing"]).groupby("missing"):
        names = ", ".join(dict.fromkeys(some["task"]))
        notes.append(f"not computed ({reason}): {names}; relative % leaves them out")
    documents = records.groupby("task", sort=False)["documents"].max()
    notes.append("documents: " + ", ".join(f"{task} {count}" for task, count in documents.items()))
    zero = sorted(
        {
            task
            for row in scores
            if row[1] == "unpruned"
            for task in scores[row]
            if not scores[row][task]
        }
    )
    if zero:
        notes.append(f"unpruned scores 0 on {', '.join(zero)}; relative % leaves them out")
    return notes
