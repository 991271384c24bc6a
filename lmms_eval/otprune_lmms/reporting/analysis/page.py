"""The analysis as a page: what was measured. What follows from it stands in ``docs/``."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.analysis.per_sample import COMPARISONS
from otprune_lmms.reporting.escape import markdown, markdown_code
from otprune_lmms.reporting.statistics.averages import headline_scores, mean_of_ratios
from otprune_lmms.results.diagnostics import MAIN, QUANTITIES, quantity
from otprune_lmms.results.frames import Frame, PandasSeries
from otprune_lmms.results.names import Names, names_of

_EMPTY = "–"
_PER_TASK = ("exact_w2", "coverage")
"""Quantities that get a table by benchmark."""


def page(analysis: Frame, records: Frame, manifest: Mapping[str, Any]) -> str:
    """Return the analysis in Markdown.

    Args:
        analysis: of `write.analysis`.
        records: of `read_records`.
        manifest: of the run.
    """
    experiment = manifest.get("experiment", {})
    title = str(experiment.get("title", "analysis"))
    if experiment.get("suite") == "mini":
        title += " (mini suite: embedded data, not the paper's benchmarks)"
    lines = [f"# Distance and score: {markdown(title)}", ""]
    origin = manifest.get("origin", {}).items()
    lines += [f"{markdown(name)}: {markdown_code(value)}  " for name, value in origin]
    models = list(dict.fromkeys(analysis["model"]))
    names = names_of(records, manifest.get("configs", ()))
    for model in models:
        own = analysis[analysis["model"] == model]
        mark = f", {markdown(model)}" if len(models) > 1 else ""
        lines += _levels(own, records[records["model"] == model], names, mark)
        lines += _means(own, mark)
        lines += _benchmarks(own, mark)
        lines += _questions(own, mark)
        lines += _loyalty(own, names, mark)
    return "\n".join([*lines, *_notes(), ""])


def _levels(own: Frame, records: Frame, names: Names, mark: str) -> list[str]:
    level = own[own["analysis"] == "level"]
    if level.empty:
        return []
    lines = ["", f"## How far, and how good{mark}", ""]
    heads = [quantity(column).name for column in MAIN]
    head = ["setting", *heads, "relative %", "agreement %"]
    value = level.set_index(["row", "quantity"])["value"]
    loyal = own[(own["analysis"] == "loyalty") & (own["task"] == "all")].set_index("row")["value"]
    table = headline_scores(records).droplevel("model")
    rows = []
    for row in dict.fromkeys(level["row"]):
        share = float("nan")
        if "unpruned" in table.index:
            share = mean_of_ratios(table.loc[row], table.loc["unpruned"])
        cells = [f"{value[row, column]:.3f}" for column in MAIN]
        cells += [_one(share), _one(loyal.get(row))]
        rows.append([markdown(names.whole(row)), *cells])
    images = int(level["images"].max())
    return [*lines, *_table(head, rows), "", f"Means over benchmarks; {images} images in all."]


def _means(own: Frame, mark: str) -> list[str]:
    some = own[(own["analysis"] == "spearman") & (own["task"] == "all")]
    if some.empty:
        return []
    head = ["budget", "subjects", "methods", *(quantity(column).name for column in MAIN)]
    rows = []
    for (size, subjects), many in some.groupby(["budget", "subjects"], sort=False):
        by = many.set_index("quantity")
        cells = [_correlation(by.loc[one]) if one in by.index else _EMPTY for one in MAIN]
        rows.append([markdown(size), markdown(subjects), str(by["methods"].iloc[0]), *cells])
    lines = ["", f"## Rank by distance against rank by score{mark}", ""]
    lines += [
        "Spearman's correlation over methods, mean over benchmarks [95 %], permutation p.",
        "",
    ]
    return [*lines, *_table(head, rows), *_differences(own)]


def _differences(own: Frame) -> list[str]:
    some = own[(own["analysis"] == "difference") & own["quantity"].isin(MAIN)]
    if some.empty:
        return []
    against = quantity(some["against"].iloc[0]).name
    rivals = [column for column in MAIN if column in set(some["quantity"])]
    rows = []
    for (size, subjects), many in some.groupby(["budget", "subjects"], sort=False):
        by = many.set_index("quantity")
        cells = [_interval(by.loc[one]) if one in by.index else _EMPTY for one in rivals]
        rows.append([markdown(size), markdown(subjects), *cells])
    head = ["budget", "subjects", *(quantity(column).name for column in rivals)]
    return ["", f"The same minus that of {against} [95 %]:", "", *_table(head, rows)]


def _benchmarks(own: Frame, mark: str) -> list[str]:
    some = own[(own["analysis"] == "spearman") & (own["subjects"] == "all")]
    some = some[some["task"] != "all"]
    lines: list[str] = []
    budgets = list(dict.fromkeys(some["budget"]))
    for column in _PER_TASK if len(some) else ():
        one = some[some["quantity"] == column]
        by = one.set_index(["task", "budget"])
        rows = []
        for task in dict.fromkeys(one["task"]):
            cells = [
                _correlation(by.loc[(task, size)]) if (task, size) in by.index else _EMPTY
                for size in budgets
            ]
            rows.append([markdown(benchmark(str(task)).column), *cells])
        lines += ["", f"### {quantity(column).name}, by benchmark{mark}", ""]
        lines += _table(["benchmark", *map(markdown, budgets)], rows)
    return lines


def _questions(own: Frame, mark: str) -> list[str]:
    some = own[own["analysis"] == "sample"]
    if some.empty:
        return []
    head = ["", "budget", "comparison", *(quantity(column).name for column in MAIN), "answers"]
    rows = []
    for (kind, size, comparison), many in some.groupby(
        ["kind", "budget", "comparison"], sort=False
    ):
        by = many.set_index("quantity")
        cells = [_effect(by.loc[column]) if column in by.index else _EMPTY for column in MAIN]
        counts = f"{many['answers'].iloc[0]} on {many['clusters'].iloc[0]} images"
        rows.append([*map(markdown, (kind, size, comparison)), *cells, counts])
    lines = ["", f"## Single answers{mark}", ""]
    lines += [
        "Change of the outcome, in points of 100, where the quantity is better by one standard "
        "deviation [95 %, errors clustered by image].",
        "",
    ]
    return [*lines, *_table(head, rows)]


def _loyalty(own: Frame, names: Names, mark: str) -> list[str]:
    some = own[own["analysis"] == "loyalty"]
    if some.empty:
        return []
    by = some.set_index(["row", "task"])
    tasks = [task for task in dict.fromkeys(some["task"]) if task != "all"]
    rows = []
    for row in dict.fromkeys(some["row"]):
        mean = by.loc[(row, "all")] if (row, "all") in by.index else None
        shown = _EMPTY if mean is None else _percent(mean)
        rows.append(
            [
                markdown(names.whole(row)),
                shown,
                *(_one(by["value"].get((row, task))) for task in tasks),
            ]
        )
    heads = [markdown(benchmark(task).column) for task in tasks]
    lines = ["", f"## Agreement with the unpruned model's answers, %{mark}", ""]
    return [*lines, *_table(["setting", "mean without captions [95 %]", *heads], rows)]


def _notes() -> list[str]:
    lines = ["", "## How to read it", ""]
    lines += [f"- {one.name} (`{one.column}`): {one.description}." for one in QUANTITIES]
    lines += [f"- {name}: {text}." for name, text in COMPARISONS.items()]
    return lines + [
        "- Distances are between an image's visual tokens before the language model and the kept "
        "ones, uniform masses, in units of the root mean squared norm of all its tokens.",
        "- A correlation is positive where smaller distances (or a higher rank) come with higher "
        "scores. Intervals are over redraws of images, the methods being these; with few methods a "
        "correlation moves in few steps, and noise pulls redrawn correlations towards 0. "
        "p permutes the methods, in the same way on all benchmarks; with m methods it is at least "
        "2/m!. p-values are not adjusted for the number of values in a table.",
        "- subjects: all methods of the budget; those of the paper's Fig. 2 (first_k, last_k, "
        "uniform, random, divprune); no ends: without first_k and last_k.",
        "- agreement: the answer after the task's filters is the unpruned model's, letter by "
        "letter.",
        "- All numbers, and the quantities that are not shown: `analysis.csv`; of each image: "
        "`diagnostics.parquet`. Median times of one selection, one image at a time: "
        "`selection_times.csv`.",
    ]


def _correlation(line: PandasSeries) -> str:
    if pd.isna(line["value"]):
        return _EMPTY
    p = "" if pd.isna(line["p"]) else f", p {line['p']:.2g}"
    return _interval(line) + p


def _interval(line: PandasSeries) -> str:
    return f"{line['value']:.2f} [{line['low']:.2f}, {line['high']:.2f}]"


def _effect(line: PandasSeries) -> str:
    return f"{line['value']:+.1f} [{line['low']:+.1f}, {line['high']:+.1f}]"


def _percent(line: PandasSeries) -> str:
    return f"{line['value']:.1f} [{line['low']:.1f}, {line['high']:.1f}]"


def _one(value: Any) -> str:
    return _EMPTY if value is None or pd.isna(value) else f"{value:.1f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]
