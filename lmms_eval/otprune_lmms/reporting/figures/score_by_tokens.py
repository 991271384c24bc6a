"""Score against kept tokens: one panel a benchmark, one line a method."""

from matplotlib.figure import Figure

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.figures.choose import chosen
from otprune_lmms.reporting.figures.data import NotDrawn, Results
from otprune_lmms.reporting.figures.parts import (
    below,
    dodge,
    draw_line,
    draw_unpruned,
    first_layer,
    handles,
    legend,
    of_all,
    of_series,
    panels,
    rows_of,
    series_of,
    several_budgets,
    title,
    token_axis,
)
from otprune_lmms.reporting.figures.style import WIDTH

CAPTION = (
    "Score against kept visual tokens of each benchmark. Bars: 95 % intervals; dotted line and "
    "band: the unpruned model. Methods are moved aside a little so that bars stay apart."
)


def draw(results: Results, model: str) -> Figure:
    """Return small multiples of score against kept tokens, logarithmic.

    Raises:
        NotDrawn: fewer than two budgets.
    """
    scores = first_layer(results.scores[results.scores["model"] == model])
    pruned = scores[scores["method"].notna()]
    if not several_budgets(pruned):
        raise NotDrawn("every method has a single budget")
    tasks = list(dict.fromkeys(scores["task"]))
    series, left = chosen(results, model, series_of(scores))
    figure, axes, free = panels(len(tasks), 4, WIDTH, 1.55)
    for place, task in zip(axes, tasks, strict=True):
        own = pruned[pruned["task"] == task]
        unpruned = scores[scores["method"].isna() & (scores["task"] == task)]
        draw_unpruned(place, unpruned)
        for number, one in enumerate(series):
            frame = rows_of(own, one).sort_values("tokens")
            draw_line(place, frame["tokens"] * dodge(number, len(series)), frame, one.look)
        shown = of_series(own, series)
        if len(shown):
            token_axis(place, list(shown["tokens"]))
        metrics = results.records.loc[results.records["task"] == task, "metric"]
        record = benchmark(task, list(dict.fromkeys(metrics)))
        title(place, record.column, record.metric_words)
    below(figure, f"{results.amount}{of_all(scores)}", left)
    legend(figure, handles(series, bool(scores["method"].isna().any())), free)
    return figure
