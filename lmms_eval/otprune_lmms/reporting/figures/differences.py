"""Paired differences to one method, with intervals and which of them survive correction."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from otprune_lmms.reporting.figures.choose import chosen
from otprune_lmms.reporting.figures.data import NotDrawn, Results, heading
from otprune_lmms.reporting.figures.parts import PLAIN, Series, below, handles, outside, series_of
from otprune_lmms.reporting.figures.style import WIDTH, look
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.records import UNPRUNED

CAPTION = (
    "Paired differences between methods on the same questions, in percent of the unpruned score, "
    "with 95 % intervals. Filled marks survive Holm's correction at 5 %, hollow ones do not. "
    "Right of 0 the method is better than the one named below the axis."
)

_ALL = "all"
_BUDGETS = 3
_LEVEL = 0.05


def draw(results: Results, model: str) -> Figure:
    """Return a forest plot a budget: every method against one, by benchmark and on average.

    That one is OTPrune where it was run, else the first method.

    Raises:
        NotDrawn: no ``pairs.csv``; no unpruned scores; a single method.
    """
    pairs = results.table("pairs.csv", "otprune sweep")
    scores = results.scores[results.scores["model"] == model]
    base = scores[scores["row"] == UNPRUNED].set_index("task")["value"]
    rows = scores.drop_duplicates("row").set_index("row")
    found = _against(pairs[pairs["model"] == model], rows, base)
    if found.empty:
        raise NotDrawn("no two methods were compared at one budget beside an unpruned model")
    known = set(found["task"])
    tasks = [task for task in dict.fromkeys(scores["task"]) if task in known]
    tasks += [_ALL] if _ALL in known else []
    budgets = list(dict.fromkeys(found["budget"]))[:_BUDGETS]
    series, left = chosen(results, model, series_of(found))
    height = max(0.05 * len(series), 0.2) * len(tasks) + 0.9
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(1, len(budgets), sharey=True, sharex=True, squeeze=False)[0]
    for place, size in zip(axes, budgets, strict=True):
        _panel(place, found[found["budget"] == size], tasks, series)
        place.set_title(_heading(results, found, size), loc="left")
    names = ["mean of ratios" if t == _ALL else heading(t) for t in tasks]
    axes[0].set_yticks(range(len(tasks)), names)
    axes[0].set_ylim(len(tasks) - 0.4, -0.6)
    against = found["against"].iloc[0]
    below(figure, f"score − score of {against}, % of unpruned", left)
    lines = handles(series, unpruned=False)
    for line in lines:
        line.set_linestyle("")
    hollow = Line2D([], [], ls="", marker="o", mfc="white", mec="black", ms=4, label="not decided")
    outside(figure, [*lines, hollow])
    return figure


def _against(pairs: Frame, rows: Frame, base: Frame) -> Frame:
    """Return other − one of the pairs that have the one method, in percent of unpruned."""
    pruned = rows[rows["method"].notna()]
    methods = list(dict.fromkeys(pruned["method"]))
    if len(pruned) < 2:
        return pairs.iloc[:0]
    one = "otprune" if "otprune" in methods else methods[0]
    plain = pruned[(pruned["method"] == one) & (pruned["variant"] == PLAIN)]
    ours = set(plain.index if len(plain) else pruned[pruned["method"] == one].index)
    lines = []
    for pair in pairs.itertuples():
        ends = {pair.a, pair.b}
        if len(ends & ours) != 1 or not ends <= set(pruned.index):
            continue
        (other,) = ends - ours
        whole = 100.0 if pair.task == _ALL else float(base.get(pair.task, np.nan))
        if not whole > 0:
            continue
        sign = -1 if pair.a in ours else 1
        low, high = sorted((sign * pair.low, sign * pair.high))
        lines.append(
            {"budget": pair.budget, "task": pair.task, "against": look(one).name}
            | rows.loc[other, ["line", "method", "variant", "layer"]].to_dict()
            | {"amount": rows.loc[other, "budget"]}
            | {"value": 100 * sign * pair.difference / whole}
            | {"low": 100 * low / whole, "high": 100 * high / whole, "p": pair.p_holm}
        )
    return pd.DataFrame(lines)


def _heading(results: Results, found: Frame, size: str) -> str:
    """Return the heading of a panel: the budget and the layer that its rows share."""
    one = found[found["budget"] == size].iloc[0]
    heading = results.budgets[one["amount"]].heading
    return f"{heading} at layer {one['layer']:.0f}" if one["layer"] else heading


def _panel(axes: Axes, own: Frame, tasks: list[str], series: Sequence[Series]) -> None:
    axes.axvline(0, color="black", lw=0.7)
    if _ALL in tasks:
        axes.axhspan(len(tasks) - 1.5, len(tasks) - 0.5, color="#000000", alpha=0.06, lw=0)
    for number, one in enumerate(series):
        some = own[(own["method"] == one.method) & (own["variant"] == one.variant)]
        aside = 0.64 * ((number + 0.5) / len(series) - 0.5)
        height = np.array([tasks.index(task) + aside for task in some["task"]])
        decided = (some["p"] < _LEVEL).to_numpy()
        axes.hlines(height, some["low"], some["high"], color=one.look.colour, lw=0.8)
        for some_of, fill in ((decided, one.look.colour), (~decided, "white")):
            axes.plot(
                some["value"][some_of], height[some_of], ls="", marker=one.look.marker, ms=4,
                mfc=fill, mec=one.look.colour, mew=0.8, zorder=4,
            )  # fmt: skip
