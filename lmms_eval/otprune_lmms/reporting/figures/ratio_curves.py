"""What pruning costs each benchmark: relative score against keep ratio, one panel a method."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.figures.choose import chosen
from otprune_lmms.reporting.figures.data import NotDrawn, Results
from otprune_lmms.reporting.figures.parts import (
    Series,
    below,
    first_layer,
    of_series,
    outside,
    panels,
    rows_of,
    series_of,
    several_budgets,
    thinned,
    wrapped,
)
from otprune_lmms.reporting.figures.style import RC, WIDTH
from otprune_lmms.results.frames import Frame

CAPTION = (
    "Score of each benchmark as a share of the unpruned model's, against the share of visual "
    "tokens kept. Thin lines: benchmarks; thick line: their mean."
)

_COLUMNS = 5


def draw(results: Results, model: str) -> Figure:
    """Return small multiples of relative score against keep ratio.

    Raises:
        NotDrawn: no unpruned scores; fewer than two budgets.
    """
    scores = relative_scores(first_layer(results.scores[results.scores["model"] == model]))
    scores = scores.assign(share=100 * scores["tokens"] / scores["visual"])
    if not several_budgets(scores):
        raise NotDrawn("every method has a single budget")
    series, left = chosen(results, model, series_of(scores))
    scores = of_series(scores, series)
    wide = WIDTH * min(1.0, (len(series) + 0.5) / _COLUMNS)
    figure, axes, _ = panels(len(series), _COLUMNS, wide, 1.9, sharex=True, sharey=True)
    width = 0.8 * wide / min(_COLUMNS, len(series))
    shares = thinned(sorted({round(share, 1) for share in scores["share"]}))
    for place, one in zip(axes, series, strict=True):
        _panel(place, rows_of(scores, one), one)
        place.set_xscale("log", base=2)
        place.xaxis.set_major_locator(FixedLocator(shares))
        place.xaxis.set_minor_locator(NullLocator())
        place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        name = wrapped(one.label, width, RC["axes.titlesize"], True)
        place.set_title(name, loc="left", color=one.look.colour)
    below(figure, f"{results.amount}, %", left)
    figure.supylabel("score, % of unpruned")
    kinds = [(_captions(scores), ":", "#888888", 0.8), ("questions", "-", "#888888", 0.8)]
    kinds.append(("mean of all", "-", "#333333", 2.2))
    lines = [Line2D([], [], ls=ls, color=colour, lw=lw, label=n) for n, ls, colour, lw in kinds]
    outside(figure, lines)
    return figure


def relative_scores(scores: Frame) -> Frame:
    """Return the pruned scores with their share of the unpruned model's in percent: ``relative``.

    Raises:
        NotDrawn: no task has an unpruned score above 0.
    """
    base = scores[scores["method"].isna()].set_index(["model", "task"])["value"]
    pruned = scores[scores["method"].notna()]
    keys = pd.MultiIndex.from_frame(pruned[["model", "task"]])
    own = base.reindex(keys).to_numpy()
    whole = np.where(own > 0, own, np.nan)
    found = pruned.assign(relative=100 * pruned["value"].to_numpy() / whole)
    found = found.dropna(subset="relative")
    if found.empty:
        raise NotDrawn("no unpruned scores to compare with")
    return found


def _captions(scores: Frame) -> str:
    """Return what the legend calls captions, with their metric."""
    records = [benchmark(str(task)) for task in scores["task"].unique()]
    words = dict.fromkeys(one.metric_words for one in records if one.kind == "caption")
    return f"captions ({', '.join(words)})" if words else "captions"


def _panel(axes: Axes, own: Frame, one: Series) -> None:
    for task, lines in own.groupby("task", sort=False):
        lines = lines.sort_values("share")
        dash = ":" if benchmark(str(task)).kind == "caption" else "-"
        axes.plot(
            lines["share"], lines["relative"], color=one.look.colour, lw=0.8, ls=dash, alpha=0.55
        )
    means = own.groupby("budget")[["share", "relative"]].mean()
    means = means.sort_values("share")
    axes.plot(
        means["share"], means["relative"], color=one.look.colour, lw=2.4,
        marker=one.look.marker, ms=5.5, mec="white", mew=0.6, zorder=5,
    )  # fmt: skip
    axes.axhline(100, color="black", lw=0.7, ls=":")
