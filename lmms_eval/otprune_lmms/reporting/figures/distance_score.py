"""Distance against score, one panel a benchmark, all budgets."""

import numpy as np
from matplotlib.figure import Figure

from otprune_lmms.reporting.figures.choose import chosen
from otprune_lmms.reporting.figures.data import Results
from otprune_lmms.reporting.figures.distances import distances
from otprune_lmms.reporting.figures.parts import (
    below,
    draw_others,
    handles,
    legend,
    others_of,
    panels,
    rows_of,
    series_of,
)
from otprune_lmms.reporting.figures.style import WIDTH

CAPTION = (
    "Score against the distance between kept and all tokens. Each line joins the budgets of one "
    "method, larger marks keep more. Across budgets smaller distances come with "
    "higher scores, because both depend on the number of tokens; the question is whether that also "
    "holds between methods of one budget."
)


def draw(results: Results, model: str) -> Figure:
    """Return small multiples of distance against score.

    Raises:
        NotDrawn: see `distances`.
    """
    measure, scores = distances(results, model)
    series, left = chosen(results, model, series_of(scores), grey=True)
    tasks = list(dict.fromkeys(scores["task"]))
    budgets = scores.groupby("budget")["tokens"].mean().rank().to_dict()
    figure, axes, free = panels(len(tasks), 4, WIDTH, 1.55)
    for place, task in zip(axes, tasks, strict=True):
        own = scores[scores["task"] == task]
        draw_others(place, others_of(own, series), "distance", "value")
        for one in series:
            frame = rows_of(own, one).sort_values("tokens")
            place.plot(frame["distance"], frame["value"], color=one.look.colour, lw=0.9, alpha=0.6)
            sizes = 9 + 13 * np.array([budgets[size] - 1 for size in frame["budget"]])
            place.scatter(
                frame["distance"], frame["value"], s=sizes, marker=one.look.marker,
                color=one.look.colour, edgecolors="white", linewidths=0.4, zorder=4,
            )  # fmt: skip
        place.set_title(own["column"].iloc[0], loc="left")
    name = f"{measure.name} between kept and all tokens, over their root mean square"
    below(figure, name, left)
    figure.supylabel("score")
    legend(figure, handles(series, unpruned=False), free)
    return figure
