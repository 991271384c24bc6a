"""Which lines a figure shows where a run has more of them than a reader can tell apart."""

from collections.abc import Sequence

from otprune_lmms.reporting.figures.data import Results
from otprune_lmms.reporting.figures.parts import Series
from otprune_lmms.results.frames import Frame

MOST = 9
"""Lines of a figure, at most."""

_ALWAYS = ("otprune", "random", "uniform")
"""Methods that are shown whatever their scores, if they were run."""

_WHERE = "table.md has all"


def chosen(
    results: Results, model: str, series: Sequence[Series], *, grey: bool = False
) -> tuple[list[Series], str]:
    """Return the lines that a figure shows, in their order, and a sentence about the others.

    Up to `MOST` lines all are shown, and the sentence is empty. Of more: OTPrune, random draws and
    an even stride as far as they were run, and of the others the best by the mean of ratios over
    their budgets, or the first ones where there are no relative averages.

    Args:
        results: of the run.
        model: whose lines they are.
        series: all lines.
        grey: whether the others are drawn as grey dots, not left out.
    """
    if len(series) <= MOST:
        return list(series), ""
    means = _means(results, model, series)
    first = {one.method: one for one in reversed(series)}
    always = [first[method] for method in _ALWAYS if method in first]
    ranked = sorted(series, key=lambda one: -means.get((one.method, one.variant), float("-inf")))
    rest = [one for one in ranked if one not in always]
    kept = [*always, *rest][:MOST]
    count = len(series) - MOST
    named = ", ".join(one.label for one in always)
    best = f"the best {MOST - len(always)} by their mean of ratios" if means else "the first ones"
    shown = f"{named} and of the others {best}" if always else best
    others = "are grey dots; named" if grey else "are left out; shown"
    return (
        [one for one in series if one in kept],
        f"{count} of {len(series)} lines {others} are {shown}; {_WHERE}.",
    )


def _means(results: Results, model: str, series: Sequence[Series]) -> dict[tuple[str, str], float]:
    """Return the mean of each line's relative averages over its rows; empty without any."""
    found: Frame = results.averages
    own = results.scores[results.scores["model"] == model].drop_duplicates("row")
    found = found[(found["model"] == model) & (found["rule"] == "mean_of_ratios")]
    joined = own[["row", "method", "variant"]].merge(found[["row", "value"]], "inner", "row")
    joined = joined[joined["value"].notna() & joined["method"].notna()]
    means = joined.groupby(["method", "variant"])["value"].mean().reset_index()
    known = {(str(one.method), str(one.variant)): float(one.value) for one in means.itertuples()}
    return known if any((one.method, one.variant) in known for one in series) else {}
