"""Methods of one benchmark and budget as points: distance and score."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from otprune_lmms.reporting.analysis.redraws import redraws
from otprune_lmms.reporting.statistics.averages import headline_scores
from otprune_lmms.reporting.statistics.headlines import resampled, terms_of
from otprune_lmms.results.columns import Budget, budget_of
from otprune_lmms.results.diagnostics import QUANTITIES
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.records import RECORDS

_DIGITS = 9
"""Decimals of what is ranked: equal scores must tie, whatever the order of their sums."""


@dataclass(frozen=True)
class Points:
    """The methods of one model, benchmark and budget, seeds averaged; B redraws of its images.

    Attributes:
        model: which.
        task: which.
        budget: label of the budget, "0.098" or "k56".
        rows: ``row`` of the m methods.
        methods: their names.
        score: headline value in shown units, [m].
        score_drawn: of each redraw, [B m].
        measured: mean over diagnosed documents by quantity (`results.diagnostics.QUANTITIES`), [m].
        measured_drawn: of each redraw, [B m].
        documents: scored.
        images: documents with images of their own that were diagnosed.
    """

    model: str
    task: str
    budget: str
    rows: tuple[str, ...]
    methods: tuple[str, ...]
    score: np.ndarray
    score_drawn: np.ndarray
    measured: Mapping[str, np.ndarray]
    measured_drawn: Mapping[str, np.ndarray]
    documents: int
    images: int

    def among(self, chosen: np.ndarray) -> "Points":
        """Return the points of some of the methods, chosen by [m] truth values."""
        return Points(
            self.model,
            self.task,
            self.budget,
            tuple(row for row, keep in zip(self.rows, chosen, strict=True) if keep),
            tuple(method for method, keep in zip(self.methods, chosen, strict=True) if keep),
            self.score[chosen],
            self.score_drawn[:, chosen],
            {name: values[chosen] for name, values in self.measured.items()},
            {name: values[:, chosen] for name, values in self.measured_drawn.items()},
            self.documents,
            self.images,
        )


def with_budget(table: Frame) -> Frame:
    """Return samples or diagnostics with the label of their budget, ``budget``.

    Only lines of settings that prune before the language model, and of layer pruners with a budget.
    """
    budgeted = table["keep_ratio"].notna() | table["k"].notna()
    chosen = table[table["method"].notna() & (table["layer"] == 0) & budgeted]
    return chosen.assign(budget=[budget.label for budget in line_budgets(chosen)])


def line_budgets(table: Frame) -> list[Budget]:
    """Return the budget of each line."""
    columns = (table[name] for name in ("keep_ratio", "k", "match"))
    return [budget_of(*line) for line in zip(*columns, strict=True)]


def points(diagnostics: Frame, samples: Frame, records: Frame, draws: int) -> Iterator[Points]:
    """Yield the points of every model, benchmark and budget that has two methods or more.

    A redraw takes as many images as the benchmark has, with replacement, and with an image all its
    documents and, if it was diagnosed, its distances: scores and distances move together.

    Args:
        diagnostics: of `read_diagnostics`.
        samples: of `read_samples`.
        records: of `read_records`.
        draws: B.
    """
    table = headline_scores(records)
    ours = with_budget(samples)
    theirs = with_budget(diagnostics)
    for (model, task, size), some in ours.groupby(["model", "task", "budget"], sort=False):
        images = theirs[
            (theirs["model"] == model) & (theirs["task"] == task) & (theirs["budget"] == size)
        ]
        images = images[images["cluster"].isin(some["cluster"])]
        if task not in table.columns or model not in table.index.get_level_values("model"):
            raise ValueError(f"{RECORDS} has no score of {model} on {task}, as the samples have")
        score = table.loc[model, task]
        rows = [
            row
            for row in dict.fromkeys(some["row"])
            if row in set(images["row"]) and pd.notna(score.get(row))
        ]
        if len(rows) >= 2:
            names = (str(model), str(task), str(size))
            yield _points(names, rows, some, images, score[rows].to_numpy(float), draws)


def _points(
    names: tuple[str, str, str],
    rows: list[str],
    samples: Frame,
    images: Frame,
    score: np.ndarray,
    draws: int,
) -> Points:
    model, task, size = names
    # All settings answer the same documents.
    one = samples[samples["setting"] == samples["setting"].iloc[0]]
    group = pd.Series(terms_of(task, one).stratum, one["cluster"])
    strata = group.groupby(level=0, sort=False).first()
    clusters, counts = strata.index, redraws(task, strata.to_numpy(), draws)
    methods = samples.drop_duplicates("row").set_index("row")["method"]
    measured, drawn = _measured(rows, images, clusters, counts)
    return Points(
        model,
        task,
        size,
        tuple(rows),
        tuple(methods[row] for row in rows),
        score.round(_DIGITS),
        _scores_drawn(task, rows, samples, clusters, counts),
        measured,
        drawn,
        samples["doc_id"].nunique(),
        images["cluster"].nunique(),
    )


def _scores_drawn(
    task: str, rows: list[str], samples: Frame, clusters: pd.Index, counts: np.ndarray
) -> np.ndarray:
    """Return the score of each row in each redraw, seeds averaged, [B m]."""
    found = []
    for row in rows:
        own = samples[samples["row"] == row].groupby("setting", sort=False)
        seeds = [
            resampled(task, seed, counts[:, clusters.get_indexer_for(seed["cluster"])])
            for _, seed in own
        ]
        found.append(np.mean(seeds, axis=0))
    return np.stack(found, axis=1).round(_DIGITS)


def _measured(
    rows: list[str], images: Frame, clusters: pd.Index, counts: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return means over documents by quantity, [m] and [B m]."""
    names = [one.column for one in QUANTITIES]
    # A document of several images counts as their mean, a row of several seeds as theirs.
    each = images.groupby(["row", "cluster"], sort=False)[names].mean()
    weights = counts[:, clusters.get_indexer_for(images["cluster"].unique())].astype(float)
    total = weights.sum(1, keepdims=True)
    shares = np.divide(weights, total, out=np.full_like(weights, np.nan), where=total > 0)
    observed, drawn = {}, {}
    for name in names:
        wide = each[name].unstack("row").loc[images["cluster"].unique(), rows].to_numpy(float)
        observed[name] = wide.mean(0).round(_DIGITS)
        drawn[name] = (shares @ wide).round(_DIGITS)
    return observed, drawn
