"""Radar of relative scores: one circle a budget, one ring a method, one spoke a benchmark."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from otprune_lmms.reporting.figures.choose import chosen
from otprune_lmms.reporting.figures.data import NotDrawn, Results, budget_names
from otprune_lmms.reporting.figures.parts import (
    Series,
    below,
    first_layer,
    handles,
    legend,
    of_series,
    panels,
    rows_of,
    series_of,
)
from otprune_lmms.reporting.figures.ratio_curves import relative_scores
from otprune_lmms.reporting.figures.style import COLUMN, WIDTH
from otprune_lmms.results.frames import Frame

CAPTION = (
    "Score of each benchmark as a share of the unpruned model's (black ring: 100 %), one circle a "
    "budget. All circles share one scale, which does not begin at 0."
)

_SPOKES = 3
_STEP = 20
_COLUMNS = 3


def draw(results: Results, model: str) -> Figure:
    """Return one radar a budget.

    Raises:
        NotDrawn: no unpruned scores; fewer than three benchmarks.
    """
    scores = relative_scores(first_layer(results.scores[results.scores["model"] == model]))
    tasks = list(dict.fromkeys(zip(scores["task"], scores["column"], strict=True)))
    if len(tasks) < _SPOKES:
        raise NotDrawn(f"a radar needs {_SPOKES} benchmarks with unpruned scores")
    budgets = budget_names(scores)
    series, left = chosen(results, model, series_of(scores))
    scores = of_series(scores, series)
    width = WIDTH if len(budgets) > 1 else COLUMN
    figure, axes, free = panels(
        len(budgets), _COLUMNS, width, 2.5, subplot_kw={"projection": "polar"}
    )
    # Names of benchmarks stand outside the circles.
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.06, hspace=0.0, wspace=0.02)
    figure.set_layout_engine(layout)
    low = _STEP * math.floor((scores["relative"].min() - 5) / _STEP)
    high = max(106.0, scores["relative"].max() + 6)
    for place, (name, rows) in zip(axes, budgets.items(), strict=True):
        own = scores[scores["row"].isin(rows)]
        _circle(place, [column for _, column in tasks], max(low, 0), high)
        for one in series:
            _ring(place, rows_of(own, one), [task for task, _ in tasks], one)
        place.set_title(name, pad=10)
    below(figure, "", left)
    legend(figure, handles(series, unpruned=True), free)
    return figure


def _circle(axes: Any, names: list[str], low: float, high: float) -> None:
    turn = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    axes.set_theta_offset(np.pi / 2)
    axes.set_theta_direction(-1)
    axes.set_xticks(turn, names)
    axes.set_ylim(low, high)
    rings = np.arange(low + _STEP, 101, _STEP)
    axes.set_yticks(rings, [f"{ring:.0f}" for ring in rings], color="#666666", fontsize=6)
    axes.set_rlabel_position(180 / len(names))  # between two spokes
    axes.tick_params(axis="x", pad=-1)
    axes.spines["polar"].set_visible(False)
    round_ = np.linspace(0, 2 * np.pi, 181)
    axes.plot(round_, np.full_like(round_, 100), color="black", lw=0.9, ls=":")


def _ring(axes: Any, own: Frame, tasks: list[str], one: Series) -> None:
    values = own.set_index("task")["relative"].reindex(tasks).to_numpy()
    if np.isnan(values).all():
        return
    turn = np.linspace(0, 2 * np.pi, len(tasks), endpoint=False)
    axes.plot(
        [*turn, turn[0]], [*values, values[0]], color=one.look.colour, ls=one.look.dash,
        lw=one.look.width, marker=one.look.marker, ms=3.2, mec="white", mew=0.3,
        zorder=3 + one.look.width,
    )  # fmt: skip
