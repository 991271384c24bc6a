"""Whether a question is answered better where its own image lost less.

Over methods there are few points, and methods differ in more than one quantity. Here a point is one
answer under one setting. The mean of its setting is subtracted and, where a question is compared
with itself only, the mean of the question.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.analysis.points import with_budget
from otprune_lmms.results.diagnostics import QUANTITIES
from otprune_lmms.results.frames import Frame

ACROSS, SAME, RANDOM_DRAWS = "across images", "same question", "same question, random draws"

COMPARISONS = {
    ACROSS: "within one setting and benchmark, whether questions about images that lost less are "
    "answered better; easy images may differ from hard ones in more than their distance",
    SAME: "the same question under all methods of a budget, each method's mean subtracted: "
    "whether a method does better, compared with the others, on the questions whose image lost "
    "less under it than images usually do",
    RANDOM_DRAWS: "the same question under several seeds of random pruning, where chance alone "
    "decides the distance",
}

COLUMNS = [
    "model",
    "budget",
    "kind",
    "comparison",
    "quantity",
    "value",
    "low",
    "high",
    "p",
    "deviation",
    "answers",
    "clusters",
]

_FEWEST_CLUSTERS = 10
"""Errors that allow for clusters need some."""

_SETTING, _QUESTION = ["task", "budget", "setting"], ["task", "budget", "doc_id"]


def outcomes(samples: Frame) -> Frame:
    """Return samples with ``kind`` and ``outcome``; those that have none are left out.

    kind "questions": 100 for right, 0 for wrong, shares between where the metric gives them. kind
    "captions": the score in percent of the unpruned model's mean on the benchmark. Benchmarks whose
    headline has no best value, other than captions, are left out.
    """
    parts = []
    groups = samples.groupby(["model", "task"], sort=False)
    for (_, task), some in groups:
        record = benchmark(str(task))
        if record.kind == "caption":
            kind, whole = "captions", some.loc[some["method"].isna(), "value"].mean()
        elif record.best_share is not None:
            kind, whole = "questions", record.best_share
        else:
            continue
        if whole > 0:
            parts.append(some.assign(kind=kind, outcome=100 * some["value"] / whole))
    return pd.concat(parts) if parts else samples.iloc[:0].assign(kind="", outcome=np.nan)


def per_sample(diagnostics: Frame, samples: Frame) -> Frame:
    """Return how much the outcome changes with a quantity, for each of `COMPARISONS`.

    Least squares on what is left after these means are subtracted, with errors clustered by image
    (statsmodels; t distribution, clusters - 1 degrees of freedom). ``value`` is the change of the
    outcome, in points of 100, when a quantity is better by one standard ``deviation`` of what is
    compared: positive where better values come with better answers. Budget "all" takes the
    deviations of all budgets from their own means together. A linear model of shares rather than a
    logistic one: with a mean for every question the latter would drop all questions that no method
    gets wrong.

    Args:
        diagnostics: of `read_diagnostics`.
        samples: of `read_samples`.

    Returns:
        `COLUMNS`.
    """
    names = [one.column for one in QUANTITIES]
    each = with_budget(diagnostics).groupby(["model", "setting", "task", "cluster"], sort=False)
    measured = each[names].mean().reset_index()
    some = with_budget(outcomes(samples)).dropna(subset="outcome")
    joined = some.merge(measured, on=["model", "setting", "task", "cluster"])
    lines: list[dict[str, Any]] = []
    for (model, kind), answers in joined.groupby(["model", "kind"], sort=False):
        budgets = list(dict.fromkeys(answers["budget"]))
        for size in budgets + (["all"] if len(budgets) > 1 else []):
            chosen = answers if size == "all" else answers[answers["budget"] == size]
            for comparison, compared in _compared(chosen):
                for line in _fits(comparison, compared):
                    lines.append({"model": model, "budget": size, "kind": kind} | line)
    return pd.DataFrame(lines, columns=COLUMNS)


def _compared(answers: Frame) -> Iterator[tuple[str, Frame]]:
    """Yield each comparison with the answers that take part."""
    yield ACROSS, answers
    for comparison, some in ((SAME, answers), (RANDOM_DRAWS, answers[answers["seed"].notna()])):
        settings = some.groupby(["task", "budget"])["setting"].transform("nunique")
        complete = some.groupby(_QUESTION)["setting"].transform("nunique") == settings
        some = some[complete & (settings > 1)]
        if len(some):
            yield comparison, some


def _fits(comparison: str, answers: Frame) -> Iterator[dict[str, Any]]:
    """Yield the fit of each quantity."""
    groups = answers["cluster"].astype("category").cat.codes.to_numpy()
    clusters = len(np.unique(groups))
    if clusters < _FEWEST_CLUSTERS:
        return
    outcome = _without_levels(answers, "outcome", comparison)
    for one in QUANTITIES:
        quantity = one.better * _without_levels(answers, one.column, comparison)
        deviation = float(quantity.std())
        # Rounding leaves traces of a quantity that is the same everywhere.
        if not deviation > 1e-9:
            continue
        fit = sm.OLS(outcome, quantity / deviation).fit(
            cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
        )
        low, high = np.asarray(fit.conf_int())[0]
        yield {
            "comparison": comparison,
            "quantity": one.column,
            "value": float(fit.params[0]),
            "low": float(low),
            "high": float(high),
            "p": float(fit.pvalues[0]),
            "deviation": deviation,
            "answers": len(answers),
            "clusters": clusters,
        }


def _without_levels(answers: Frame, column: str, comparison: str) -> np.ndarray:
    """Return a column minus the mean of its setting, and of its question where that is compared.

    Questions that take part have every setting of their benchmark and budget, so subtracting both
    means and adding the overall one removes both levels exactly.
    """
    values = answers[column]
    left = values - answers.groupby(_SETTING)[column].transform("mean")
    if comparison != ACROSS:
        left = left - answers.groupby(_QUESTION)[column].transform("mean")
        left = left + answers.groupby(["task", "budget"])[column].transform("mean")
    return left.to_numpy(float)
