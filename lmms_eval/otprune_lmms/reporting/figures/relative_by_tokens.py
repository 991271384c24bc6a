"""Relative average against kept tokens, under each averaging rule."""

from matplotlib.figure import Figure

from otprune_lmms.reporting.figures.choose import chosen
from otprune_lmms.reporting.figures.data import ABOUT, RULES, NotDrawn, Results
from otprune_lmms.reporting.figures.parts import (
    below,
    dodge,
    draw_line,
    draw_unpruned,
    first_layer,
    handles,
    of_all,
    of_series,
    outside,
    panels,
    rows_of,
    series_of,
    several_budgets,
    token_axis,
)
from otprune_lmms.reporting.figures.style import WIDTH
from otprune_lmms.results.frames import Frame

CAPTION = (
    "Average over all benchmarks as a share of the unpruned model's, against kept visual tokens, "
    "under both averaging rules in use. Bars: 95 % intervals over documents."
)


def draw(results: Results, model: str) -> Figure:
    """Return one panel a rule.

    Raises:
        NotDrawn: no averages; fewer than two budgets.
    """
    rules = {rule: relative_averages(results, model, rule) for rule in _rules(results)}
    one = next(iter(rules.values()))
    if not several_budgets(first_layer(one.assign(task="all"))):
        raise NotDrawn("every method has a single budget")
    figure, axes, _ = panels(len(rules), 2, WIDTH, 2.45, sharey=True)
    for place, (rule, averages) in zip(axes, rules.items(), strict=True):
        shown = first_layer(averages)
        draw_unpruned(place, shown[shown["method"].isna()])
        pruned = shown[shown["method"].notna()]
        series, _ = chosen(results, model, series_of(pruned))
        pruned = of_series(pruned, series)
        for number, line in enumerate(series):
            frame = rows_of(pruned, line).sort_values("tokens")
            draw_line(place, frame["tokens"] * dodge(number, len(series), 0.1), frame, line.look)
        token_axis(place, list(pruned["tokens"]))
        place.set_title(rule.replace("_", " "), loc="left")
    axes[0].set_ylabel("relative average, % of unpruned")
    series, left = chosen(results, model, series_of(one))
    below(figure, f"{results.amount}{of_all(results.scores)}", left)
    outside(figure, handles(series))
    return figure


def relative_averages(results: Results, model: str, rule: str | None = None) -> Frame:
    """Return a model's relative averages with what its rows are.

    Columns row, those of `data.ABOUT`, tokens, value, low, high.

    Raises:
        NotDrawn: no averages of the model under the rule.
    """
    rule = rule or _rules(results)[0]
    found = results.averages
    found = found[(found["model"] == model) & (found["rule"] == rule)].dropna(subset="value")
    if found.empty:
        raise NotDrawn(f"no {rule.replace('_', ' ')} of {model}: it has no unpruned scores")
    own = results.scores[results.scores["model"] == model]
    about = own.groupby("row", sort=False).agg(
        **{name: (name, "first") for name in ABOUT},
        tokens=("tokens", "mean"),
    )
    return about.reset_index().merge(found[["row", "value", "low", "high"]], "inner", "row")


def _rules(results: Results) -> list[str]:
    known = [rule for rule in RULES if rule in set(results.averages["rule"])]
    if not known:
        raise NotDrawn("no relative averages: there are no unpruned scores")
    return known
