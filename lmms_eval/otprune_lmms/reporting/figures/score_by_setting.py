"""Relative average against a setting of a method: the curve of an ablation."""

import json

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from otprune_lmms.reporting.figures.data import NotDrawn, Results, budget_names
from otprune_lmms.reporting.figures.parts import (
    draw_line,
    draw_unpruned,
    first_layer,
    panels,
)
from otprune_lmms.reporting.figures.relative_by_tokens import relative_averages
from otprune_lmms.reporting.figures.style import COLUMN, WIDTH, drawn, look, shade
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.names import symbol

CAPTION = (
    "Relative average against a setting of a method, one line a budget. Bars: 95 % intervals; "
    "dotted: the unpruned model."
)

_FEWEST = 3
"""Values of a setting that make a curve."""


def draw(results: Results, model: str) -> Figure:
    """Return one panel for each method and setting with at least three values.

    Raises:
        NotDrawn: no setting has three values.
    """
    averages = first_layer(relative_averages(results, model))
    curves = curves_of(averages)
    if not curves:
        raise NotDrawn("no setting of a method has three values")
    width = COLUMN if len(curves) == 1 else WIDTH
    figure, axes, _ = panels(len(curves), 2, width, 2.3)
    for place, ((method, name), frame) in zip(axes, curves.items(), strict=True):
        draw_unpruned(place, averages[averages["method"].isna()])
        budgets = budget_names(frame)
        for number, (budget, rows) in enumerate(budgets.items()):
            own = frame[frame["row"].isin(rows)].sort_values("x")
            shaded = shade(look(method, results.methods), number, len(budgets))
            draw_line(place, own["x"], own, shaded, budget)
        values = sorted(set(frame["x"]))
        if min(values) > 0 and max(values) / min(values) >= 8:
            place.set_xscale("log")
        place.xaxis.set_major_locator(FixedLocator(values))
        place.xaxis.set_minor_locator(NullLocator())
        place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        place.set_xlabel(drawn(symbol(name)))
        place.set_title(look(method, results.methods).name, loc="left")
        place.legend()
    figure.supylabel("relative average, % of unpruned")
    return figure


def curves_of(averages: Frame) -> dict[tuple[str, str], Frame]:
    """Return the rows that differ in one numeric setting alone, by method and setting.

    Returns:
        The averages with a column ``x``, the setting's value, defaults included; of settings with
        at least three values.
    """
    found = {}
    pruned = averages[averages["method"].notna()]
    for method, own in pruned.groupby("method", sort=False):
        changed = [json.loads(one) for one in own["variant"]]
        every = [json.loads(one) for one in own["settings"]]
        for name in sorted({next(iter(one)) for one in changed if len(one) == 1}):
            x = [
                _number(settings.get(name)) if set(own_changes) <= {name} else float("nan")
                for own_changes, settings in zip(changed, every, strict=True)
            ]
            frame = own.assign(x=x).dropna(subset="x")
            if frame["x"].nunique() >= _FEWEST:
                found[str(method), name] = frame
    return found


def _number(value: object) -> float:
    """Return a value that is a number, NaN for any other."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float("nan")
    return float(value)
