"""Relative average against a setting of a method: the curve of an ablation."""

import re

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from otprune_lmms.reporting.figures.budgets import budget_names
from otprune_lmms.reporting.figures.data import Frame, NotDrawn, Results, spoken
from otprune_lmms.reporting.figures.parts import draw_line, draw_unpruned, first_layer, panels
from otprune_lmms.reporting.figures.relative_by_tokens import relative_averages
from otprune_lmms.reporting.figures.style import COLUMN, WIDTH, look, shade

CAPTION = (
    "Relative average against a setting of a method, one line a budget. Bars: 95 % intervals; "
    "dotted: the unpruned model."
)


def draw(results: Results, model: str) -> Figure:
    """Return one panel for each method and setting with at least three values.

    Raises:
        NotDrawn: no setting has three values.
    """
    averages = first_layer(relative_averages(results, model))
    curves = settings_of(averages, results.manifest)
    if not curves:
        raise NotDrawn("no setting of a method has three values")
    width = COLUMN if len(curves) == 1 else WIDTH
    figure, axes, _ = panels(len(curves), 2, width, 2.3)
    for place, ((method, name), frame) in zip(axes, curves.items(), strict=True):
        draw_unpruned(place, averages[averages["method"].isna()])
        budgets = budget_names(frame.assign(visual=float("nan")))
        for number, (budget, rows) in enumerate(budgets.items()):
            own = frame[frame["row"].isin(rows)].sort_values("setting")
            shaded = shade(look(method, results.methods), number, len(budgets))
            draw_line(place, own["setting"], own, shaded, budget)
        values = sorted(set(frame["setting"]))
        if min(values) > 0 and max(values) / min(values) >= 8:
            place.set_xscale("log")
        place.xaxis.set_major_locator(FixedLocator(values))
        place.xaxis.set_minor_locator(NullLocator())
        place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        place.set_xlabel(spoken(f"{name}0").removesuffix(" = 0"))
        place.set_title(look(method, results.methods).name, loc="left")
        place.legend()
    figure.supylabel("relative average, % of unpruned")
    return figure


def settings_of(averages: Frame, manifest) -> dict[tuple[str, str], Frame]:
    """Return the rows that differ in one numeric setting, by method and setting.

    A row that holds the default does not say it in its label; the experiment in the manifest does.

    Returns:
        The averages with a column ``setting``, of settings with at least three values.
    """
    found = {}
    pruned = averages[averages["method"].notna()]
    for method, own in pruned.groupby("method", sort=False):
        parts = own["variant"].str.fullmatch(r"[A-Za-z_]+-?[\d.]+(e-?\d+)?")
        names = {re.split(r"[-\d.]", one)[0] for one in own["variant"][parts]}
        for name in sorted(names):
            shown = own["variant"].str.extract(rf"^{name}(-?[\d.]+(?:e-?\d+)?)$")[0].astype(float)
            plain = own["variant"] == ""
            frame = own.assign(setting=shown.mask(plain, _default(manifest, method, name, shown)))
            frame = frame.dropna(subset="setting")
            if frame["setting"].nunique() >= 3:
                found[str(method), name] = frame
    return found


def _default(manifest, method, name: str, shown: Frame) -> float:
    """Return the value of a setting that the experiment asks for and no label says."""
    cells = (manifest.get("experiment") or {}).get("cells", {})
    asked = [
        choice.get("settings", {}).get(name)
        for choice in cells.get("methods", [])
        if choice.get("method") == method
    ]
    left = {float(value) for value in asked if isinstance(value, int | float)} - set(shown)
    return left.pop() if len(left) == 1 else float("nan")
