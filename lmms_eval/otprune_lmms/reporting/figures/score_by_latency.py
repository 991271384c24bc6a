"""Score against latency, and which settings no other one beats at both (Pareto front)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from otprune_lmms.reporting.figures.choose import chosen
from otprune_lmms.reporting.figures.data import NotDrawn, Results
from otprune_lmms.reporting.figures.parts import (
    Series,
    below,
    draw_others,
    handles,
    others_of,
    outside,
    panels,
    rows_of,
    series_of,
)
from otprune_lmms.reporting.figures.relative_by_tokens import relative_averages
from otprune_lmms.reporting.figures.style import UNPRUNED_LOOK, WIDTH
from otprune_lmms.results.frames import Frame

CAPTION = (
    "Relative average score against measured time. Left: prefill with selection, the part that "
    "pruning is meant to save; right: one answer, from pixels to its last token. Lines join the "
    "budgets of a method; ringed settings are on the Pareto front: none is both faster and better."
)

_PREFILL = ("select_ms", "prefill_ms")
_ANSWER = ("vision_ms", "select_ms", "prefill_ms", "decode_ms")
_FROM_ZERO = 0.4
"""Share of the slowest that the fastest must stay below for an axis that begins at 0."""


def draw(results: Results, model: str) -> Figure:
    """Return score against prefill time and against the time of a whole answer.

    Raises:
        NotDrawn: no ``cost.csv``; none of its settings has a score.
    """
    cost = results.table("cost.csv", "otprune bench")
    points = timed(relative_averages(results, model), cost[cost["model"] == model])
    if points["method"].notna().sum() == 0:
        raise NotDrawn(f"no setting of {model} has both a score and a time")
    figure, axes, _ = panels(2, 2, WIDTH, 2.5, sharey=True)
    series, left = chosen(results, model, series_of(points), grey=True)
    names = ("selection + prefill", "vision + selection + prefill + decoding")
    for place, columns, name in zip(axes, (_PREFILL, _ANSWER), names, strict=True):
        known = [column for column in columns if column in points]
        _panel(place, points.assign(ms=points[known].fillna(0).sum(axis=1)), series)
        place.set_xlabel(f"{name}, ms")
    axes[0].set_ylabel("relative average, % of unpruned")
    ring = Line2D([], [], ls="", marker="o", mfc="none", mec="black", ms=8, label="Pareto front")
    lines = [*handles(series, unpruned=False), _star(), ring]
    below(figure, "", left)
    outside(figure, lines)
    return figure


def timed(averages: Frame, cost: Frame) -> Frame:
    """Return the rows that have an average and a time at the smallest batch, with both."""
    times = [column for column in cost.columns if column.endswith("_ms")]
    if "batch" in cost and len(cost):
        cost = cost[cost["batch"] == cost["batch"].min()]
    return averages.merge(cost.groupby("row")[times].mean().reset_index(), "inner", "row")


def front(cost: Sequence[float], score: Sequence[float]) -> np.ndarray:
    """Return which points no other beats: cheaper at the same score, or better at the same cost.

    Equal points are both on the front. O(n²).

    Returns:
        bool [n].
    """
    x, y = np.asarray(cost, float), np.asarray(score, float)
    as_cheap, as_good = x[None] <= x[:, None], y[None] >= y[:, None]
    better = (x[None] < x[:, None]) | (y[None] > y[:, None])
    return np.logical_not(np.any(as_cheap & as_good & better, axis=1))


def _panel(axes: Axes, points: Frame, series: Sequence[Series]) -> None:
    draw_others(axes, others_of(points, series), "ms", "value")
    for one in series:
        own = rows_of(points, one).sort_values("tokens")
        axes.plot(
            own["ms"], own["value"], color=one.look.colour, ls=one.look.dash, lw=one.look.width,
            marker=one.look.marker, mec="white", mew=0.5, zorder=3 + one.look.width,
        )  # fmt: skip
        axes.vlines(own["ms"], own["low"], own["high"], color=one.look.colour, lw=0.8, alpha=0.7)
    whole = points[points["method"].isna()]
    axes.plot(
        whole["ms"], whole["value"], ls="", marker="*", ms=9, color=UNPRUNED_LOOK.colour, zorder=9
    )
    best = points[front(points["ms"], points["value"])].sort_values("ms")
    axes.plot(
        best["ms"], best["value"], color="black", lw=5, alpha=0.1, solid_capstyle="round", zorder=1
    )
    axes.plot(
        best["ms"], best["value"], ls="", marker="o", ms=9, mfc="none", mec="black", mew=0.8,
        zorder=10,
    )  # fmt: skip
    axes.margins(x=0.08)
    if points["ms"].min() < _FROM_ZERO * points["ms"].max():
        axes.set_xlim(left=0)


def _star() -> Line2D:
    return Line2D(
        [], [], ls="", marker="*", ms=9, color=UNPRUNED_LOOK.colour, label=UNPRUNED_LOOK.name
    )
