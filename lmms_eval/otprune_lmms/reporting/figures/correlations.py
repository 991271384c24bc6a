"""Rank correlation of what was measured with the score: a panel a quantity, a row a benchmark."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from otprune_lmms.reporting.figures.data import NotDrawn, Results, heading
from otprune_lmms.reporting.figures.parts import outside
from otprune_lmms.reporting.figures.style import WIDTH
from otprune_lmms.results.columns import Budget
from otprune_lmms.results.diagnostics import MAIN, quantity
from otprune_lmms.results.frames import Frame

CAPTION = (
    "Spearman's correlation over methods of each quantity's rank with the score's, of each "
    "benchmark and their mean; positive where better values come with higher scores. "
    "Bars: 95 % intervals over redraws of images."
)

_SHADES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_ALL = "all"


def draw(results: Results, model: str) -> Figure:
    """Return a forest plot a quantity.

    Raises:
        NotDrawn: no ``analysis.csv``; no correlation in it.
    """
    found = results.table("analysis.csv", "otprune analyze")
    found = found[(found["analysis"] == "spearman") & (found["subjects"] == "all")]
    found = found[(found["model"] == model) & found["value"].notna()]
    # An analysis of earlier records may have others.
    found = found[found["budget"].isin(list(results.budgets)) & found["task"].notna()]
    quantities = [name for name in MAIN if name in set(found["quantity"])]
    if not quantities:
        raise NotDrawn(f"no rank correlations of {model} in analysis.csv")
    tasks = [task for task in dict.fromkeys(found["task"]) if task != _ALL]
    tasks += [_ALL] if _ALL in set(found["task"]) else []
    budgets = {size: results.budgets[size] for size in dict.fromkeys(found["budget"])}
    figure = Figure(figsize=(WIDTH, 0.21 * len(tasks) + 0.95), layout="constrained")
    axes = figure.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
    for place, name in zip(axes, quantities, strict=True):
        _panel(place, found[found["quantity"] == name], tasks, budgets)
        place.set_title(_short(quantity(name).name), loc="left")
    names = ["mean" if task == _ALL else heading(task) for task in tasks]
    axes[0].set_yticks(range(len(tasks)), names)
    axes[0].set_ylim(len(tasks) - 0.4, -0.6)
    figure.supxlabel("Spearman's ρ with the score over methods")
    lines = axes[0].get_legend_handles_labels()[0]
    outside(figure, lines)
    return figure


def _panel(axes: Axes, own: Frame, tasks: list[str], budgets: Mapping[str, Budget]) -> None:
    axes.axvline(0, color="black", lw=0.7)
    if _ALL in tasks:
        axes.axhspan(len(tasks) - 1.5, len(tasks) - 0.5, color="#000000", alpha=0.06, lw=0)
    for number, (size, budget) in enumerate(budgets.items()):
        some = own[own["budget"] == size]
        colour = _SHADES[number % len(_SHADES)]
        aside = 0.5 * ((number + 0.5) / len(budgets) - 0.5)
        height = [tasks.index(task) + aside for task in some["task"]]
        axes.hlines(height, some["low"], some["high"], color=colour, lw=0.9)
        axes.plot(
            some["value"], height, ls="", marker=_MARKERS[number % len(_MARKERS)], ms=4,
            color=colour, mec="white", mew=0.4, label=budget.heading, zorder=4, clip_on=False,
        )  # fmt: skip
    axes.set_xlim(-1.08, 1.08)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "−.5", "0", ".5", "1"])


def _short(name: str) -> str:
    return name if len(name) < 20 else name.replace(", ", ",\n", 1)
