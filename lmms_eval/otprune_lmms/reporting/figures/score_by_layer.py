"""Score against the layer at which tokens are dropped."""

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.figures.choose import chosen
from otprune_lmms.reporting.figures.data import NotDrawn, Results, budget_names
from otprune_lmms.reporting.figures.parts import (
    below,
    draw_line,
    draw_unpruned,
    handles,
    legend,
    panels,
    rows_of,
    series_of,
    title,
)
from otprune_lmms.reporting.figures.style import WIDTH
from otprune_lmms.results.frames import Frame

CAPTION = (
    "Score against the decoder layer before which tokens are dropped (0: before the language "
    "model), at the smallest budget. Bars: 95 % intervals; dotted: the unpruned model."
)


def draw(results: Results, model: str) -> Figure:
    """Return small multiples of score against layer, one a benchmark.

    Raises:
        NotDrawn: no method was run at two layers with one budget.
    """
    scores = results.scores[results.scores["model"] == model]
    pruned = layered(scores)
    name, rows = next(iter(budget_names(pruned).items()))
    pruned = pruned[pruned["row"].isin(rows)]
    series, left = chosen(results, model, series_of(pruned))
    tasks = list(dict.fromkeys(scores["task"]))
    layers = sorted({int(layer) for layer in pruned["layer"]})
    figure, axes, free = panels(len(tasks), 4, WIDTH, 1.55)
    for place, task in zip(axes, tasks, strict=True):
        draw_unpruned(place, scores[scores["method"].isna() & (scores["task"] == task)])
        for one in series:
            frame = rows_of(pruned[pruned["task"] == task], one).sort_values("layer")
            draw_line(place, frame["layer"], frame, one.look)
        place.xaxis.set_major_locator(FixedLocator(layers))
        metrics = results.records.loc[results.records["task"] == task, "metric"]
        record = benchmark(task, list(dict.fromkeys(metrics)))
        title(place, record.column, record.metric_words)
    below(figure, f"layer before which tokens are dropped; {name} kept", left)
    legend(figure, handles(series, bool(scores["method"].isna().any())), free)
    return figure


def layered(scores: Frame) -> Frame:
    """Return the scores of methods that were run at several layers with one budget.

    Raises:
        NotDrawn: there is none.
    """
    pruned = scores[scores["method"].notna()]
    groups = pruned.groupby(["method", "variant", "budget"])
    found = pruned[groups["layer"].transform("nunique") > 1]
    if found.empty:
        raise NotDrawn("no method was run at several layers")
    return found
