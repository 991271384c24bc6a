"""Distances between kept and all tokens beside the scores, for the figures that compare them."""

from otprune_lmms.reporting.analysis.points import with_budget
from otprune_lmms.reporting.figures.data import NotDrawn, Results
from otprune_lmms.reporting.figures.parts import first_layer
from otprune_lmms.results.diagnostics import Quantity, quantity
from otprune_lmms.results.frames import Frame

_PAPERS = "0.098"
"""The budget of the paper's Fig. 2."""

_DIGITS = 9
"""Decimals of what is ranked: equal means must tie, whatever the order of their sums."""


def distances(results: Results, model: str) -> tuple[Quantity, Frame]:
    """Return the scores of one model with the mean distance of each setting and benchmark.

    The exact distance, or where it was not solved the Gaussian one.

    Returns:
        The quantity; the scores with ``distance``.

    Raises:
        NotDrawn: no diagnostics; no benchmark with two methods that were diagnosed.
    """
    found = with_budget(results.diagnostics)
    found = found[found["model"] == model]
    column = "gaussian_w2" if found["exact_w2"].isna().all() else "exact_w2"
    # A document of several images counts as their mean, a row of several seeds as theirs.
    each = found.groupby(["task", "row", "cluster"])[column].mean()
    mean = each.groupby(["task", "row"]).mean().round(_DIGITS).rename("distance").reset_index()
    scores = first_layer(results.scores[results.scores["model"] == model])
    scores = scores.merge(mean, "inner", ["task", "row"])
    methods = scores.groupby(["task", "budget"])["row"].transform("nunique")
    scores = scores[methods > 1]
    if scores.empty:
        raise NotDrawn("no budget at which two methods were diagnosed and scored")
    return quantity(column), scores


def paper_budget(scores: Frame) -> str:
    """Return the budget of the paper's Fig. 2 where it was run, else the smallest."""
    budgets = scores.groupby("budget")["tokens"].mean()
    return _PAPERS if _PAPERS in budgets.index else str(budgets.idxmin())


def correlation(results: Results, model: str, task: str, size: str, column: str) -> str:
    """Return Spearman's correlation of a benchmark as text, "" without ``analysis.csv``."""
    found = results.optional("analysis.csv")
    if found is None:
        return ""
    own = found[(found["analysis"] == "spearman") & (found["subjects"] == "all")]
    own = own[(own["model"] == model) & (own["task"] == task) & (own["quantity"] == column)]
    own = own[own["budget"] == size]
    if own.empty or own["value"].isna().iloc[0]:
        return ""
    line = own.iloc[0]
    return f"ρ = {line['value']:.2f} [{line['low']:.2f}, {line['high']:.2f}]".replace("-", "−")
