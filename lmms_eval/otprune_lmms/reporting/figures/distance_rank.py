"""Rank by distance against rank by score, one panel a benchmark: the paper's Fig. 2."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from otprune_lmms.reporting.figures.choose import chosen
from otprune_lmms.reporting.figures.data import NotDrawn, Results
from otprune_lmms.reporting.figures.distances import correlation, distances, paper_budget
from otprune_lmms.reporting.figures.parts import (
    below,
    draw_others,
    handles,
    legend,
    of_series,
    others_of,
    panels,
    series_of,
)
from otprune_lmms.reporting.figures.style import WIDTH

CAPTION = (
    "Rank of each method by the distance between its kept tokens and all tokens (1: nearest), "
    "against its rank by score (1: best), of each benchmark. On the dashed line both agree. "
    "ρ: Spearman's correlation, positive where smaller distances come with higher scores, and its "
    "95 % interval."
)

_FEWEST = 3


def draw(results: Results, model: str) -> Figure:
    """Return small multiples of distance rank against score rank at one budget.

    Raises:
        NotDrawn: see `distances`; fewer than three methods.
    """
    measure, scores = distances(results, model)
    size = paper_budget(scores)
    scores = scores[scores["budget"] == size]
    many = scores.groupby("task")["row"].transform("nunique")
    scores = scores[many >= _FEWEST]
    if scores.empty:
        raise NotDrawn(f"a rank needs {_FEWEST} methods at one budget")
    series, left = chosen(results, model, series_of(scores), grey=True)
    tasks = list(dict.fromkeys(scores["task"]))
    most = int(scores.groupby("task")["row"].nunique().max())
    figure, axes, free = panels(len(tasks), 4, WIDTH, 1.65)
    for place, task in zip(axes, tasks, strict=True):
        own = scores[scores["task"] == task]
        near = own["distance"].rank().to_numpy()
        good = own["value"].round(9).rank(ascending=False).to_numpy()
        place.plot([0.5, most + 0.5], [0.5, most + 0.5], color="#999999", lw=0.8, ls="--")
        ranked = own.assign(near=near, good=good)
        draw_others(place, others_of(ranked, series), "near", "good")
        for line in of_series(ranked, series).itertuples():
            (one,) = [s for s in series if (s.method, s.variant) == (line.method, line.variant)]
            place.plot(
                line.near, line.good, ls="", marker=one.look.marker, ms=6.5, color=one.look.colour,
                mec="white", mew=0.6, zorder=4,
            )  # fmt: skip
        place.set(xlim=(0.4, most + 0.6), ylim=(most + 0.6, 0.4))
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
        place.yaxis.set_major_locator(MaxNLocator(integer=True))
        place.set_title(own["column"].iloc[0], loc="left")
        shown = correlation(results, model, task, size, measure.column)
        place.set_xlabel(shown, fontsize=7, labelpad=1.5)
    below(figure, f"rank by {measure.name} (1: nearest)", left)
    figure.supylabel("rank by score (1: best)")
    lines = handles(series, unpruned=False)
    for line in lines:
        line.set_linestyle("")
        line.set_markersize(6)
    legend(figure, lines, free)
    return figure
