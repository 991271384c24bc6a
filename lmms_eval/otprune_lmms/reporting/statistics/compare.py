"""Intervals, averages and tests of an experiment, as frames."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.statistics.averages import (
    MEAN_OF_RATIOS,
    RATIO_OF_MEANS,
    headline_scores,
    mean_of_ratios,
    ratio_of_means,
)
from otprune_lmms.reporting.statistics.bootstrap import (
    DRAWS,
    bootstrap_p,
    interval,
    relative_draws,
)
from otprune_lmms.reporting.statistics.draws import (
    Draws,
    ModelDraws,
    draw_model,
    shared_draws,
    used_tasks,
)
from otprune_lmms.reporting.statistics.gather import TaskSamples
from otprune_lmms.reporting.statistics.paired import (
    BOOTSTRAP,
    MCNEMAR,
    PERMUTATIONS,
    compare_pairs,
    discordant,
    holm,
)
from otprune_lmms.reporting.statistics.pairing import Comparison, comparisons, rows_of
from otprune_lmms.reporting.statistics.power import detectable_difference, detectable_from_error
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.names import Names, names_of
from otprune_lmms.results.records import UNPRUNED

AVERAGE_COLUMNS = ("model", "row", "rule", "value", "low", "high", "tasks")
INTERVAL_COLUMNS = ("model", "row", "task", "value", "low", "high", "documents", "clusters")
PAIR_COLUMNS = (
    "model",
    "budget",
    "task",
    "a",
    "b",
    "difference",
    "low",
    "high",
    "test",
    "p",
    "p_holm",
    "documents",
    "discordant",
)
"""Columns of ``averages.csv``, ``intervals.csv``, ``pairs.csv``."""

ALL = {MEAN_OF_RATIOS: "all", RATIO_OF_MEANS: "all, ratio of means"}
"""``task`` of the comparison of relative averages, by rule."""

_RULES = {
    MEAN_OF_RATIOS: mean_of_ratios,
    RATIO_OF_MEANS: ratio_of_means,
}
_Line = dict[str, Any]


@dataclass(frozen=True)
class Findings:
    """Intervals, averages and tests of an experiment.

    Attributes:
        averages: columns `AVERAGE_COLUMNS`; ``tasks`` names those that enter, separated by spaces.
        intervals: columns `INTERVAL_COLUMNS`.
        pairs: columns `PAIR_COLUMNS` and ``detectable``, the smallest difference that a test of
            this pair would find (alpha 0.05, power 0.8, before Holm), in the unit of
            ``difference``.
        models: the draws, by model.
        draws: bootstrap draws.
        permutations: exchanges tried in a permutation test.
        names: what readers are shown for a row.
    """

    averages: Frame
    intervals: Frame
    pairs: Frame
    models: Mapping[str, ModelDraws]
    draws: int
    permutations: int
    names: Names


def find(
    records: Frame,
    samples: Frame,
    *,
    draws: int = DRAWS,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    names: Names | None = None,
) -> Findings:
    """Return intervals, averages and tests of an experiment.

    Point values are those of the records, intervals and tests come from the samples. p-values are
    adjusted after Holm within a family: the pairs of methods of one model, budget and task;
    comparisons with the unpruned model are families of their own.

    Args:
        records: as `read_records` gives them.
        samples: as `read_samples` gives them; model, row, setting, task, doc_id, cluster, value
            and detail are read.
        draws: of the bootstrap.
        permutations: of a permutation test.
        seed: of all draws.
        names: of the rows; None for those that follow from the records.
    """
    table = headline_scores(records)
    models, lines = {}, []
    for name, some in records.groupby("model", sort=False):
        mine = samples[samples["model"] == name]
        model = draw_model(str(name), table.loc[name], mine, draws, seed)
        models[str(name)] = model
        lines += list(_pairs(model, comparisons(rows_of(some)), permutations))
    pairs = pd.DataFrame(lines, columns=[*PAIR_COLUMNS, "detectable"])
    counts = {"documents": "Int64", "discordant": "Int64"}
    return Findings(
        averages=pd.DataFrame(
            [line for model in models.values() for line in _averages(model)],
            columns=list(AVERAGE_COLUMNS),
        ),
        intervals=pd.DataFrame(
            [line for model in models.values() for line in _intervals(model)],
            columns=list(INTERVAL_COLUMNS),
        ).astype({"documents": "Int64", "clusters": "Int64"}),
        pairs=_adjusted(pairs.astype(counts)),
        models=models,
        draws=draws,
        permutations=permutations,
        names=names_of(records) if names is None else names,
    )


def _adjusted(pairs: Frame) -> Frame:
    family = [pairs["model"], pairs["budget"], pairs["task"], pairs["b"] == UNPRUNED]
    adjusted = pairs.groupby(family, sort=False)["p"].transform(lambda p: holm(p.to_numpy(float)))
    return pairs.assign(p_holm=adjusted.astype(float))


def _intervals(model: ModelDraws) -> Iterator[_Line]:
    for row, own in model.scores.iterrows():
        for task, value in own.dropna().items():
            line = {"model": model.model, "row": row, "task": task, "value": value}
            data = model.tasks.get(str(task))
            if data is None or row not in data.draws:
                yield line | {"low": np.nan, "high": np.nan, "documents": pd.NA, "clusters": pd.NA}
                continue
            low, high = interval(data.draws[str(row)])
            group = data.of(str(row))
            counts = {"documents": len(group.documents), "clusters": group.clusters}
            yield line | {"low": low, "high": high} | counts


def _averages(model: ModelDraws) -> Iterator[_Line]:
    if UNPRUNED not in model.scores.index:
        return
    base = model.scores.loc[UNPRUNED]
    for row in model.scores.index:
        for rule, average in _RULES.items():
            value = average(model.scores.loc[row], base)
            tasks = used_tasks(model.scores, [row, UNPRUNED], rule)
            found = shared_draws(model, row, UNPRUNED, rule)
            ends = (np.nan, np.nan) if found is None else interval(relative_draws(*found, rule))
            line = {"model": model.model, "row": row, "rule": rule, "value": value}
            yield line | {"low": ends[0], "high": ends[1], "tasks": " ".join(tasks)}


def _pairs(
    model: ModelDraws, wanted: list[Comparison], permutations: int
) -> Iterator[dict[str, Any]]:
    places = {one.pair: place for place, one in enumerate(wanted)}
    pairs = list(places)
    for task in model.tasks:
        lines = []
        for samples, draws, inside in model.matched(task, pairs):
            tested = compare_pairs(samples, inside, permutations, model.seed)
            for pair in inside:
                found = _pair(samples, draws, pair, tested[pair])
                lines.append((places[pair], {"model": model.model, "task": task} | found))
        for place, line in sorted(lines, key=lambda one: one[0]):
            yield line | {"budget": wanted[place].budget}
    if UNPRUNED in model.scores.index:
        for rule in _RULES:
            for one in wanted:
                yield _relative(model, one, rule)


def _pair(
    samples: TaskSamples, draws: Draws, pair: tuple[str, str], tested: tuple[str, float]
) -> _Line:
    a, b = pair
    gaps = draws[a] - draws[b]
    low, high = interval(gaps)
    differing, documents = discordant(samples, a, b), len(samples.documents)
    test, p = tested
    if test == MCNEMAR:
        top = max(samples.values[a].max(), samples.values[b].max())
        top *= benchmark(samples.task).scale
        detectable = top * detectable_difference(differing / documents, documents)
    else:
        detectable = _from_draws(gaps)
    return {
        "a": a,
        "b": b,
        "difference": samples.point(a) - samples.point(b),
        "low": low,
        "high": high,
        "test": test,
        "p": p,
        "documents": documents,
        "discordant": differing,
        "detectable": detectable,
    }


def _relative(model: ModelDraws, one: Comparison, rule: str) -> _Line:
    """Return the comparison of two relative averages, over the tasks that all three rows have."""
    tasks = used_tasks(model.scores, [one.a, one.b, UNPRUNED], rule)
    base = model.scores.loc[UNPRUNED, tasks]
    points = [_RULES[rule](model.scores.loc[row, tasks], base) for row in one.pair]
    line = {
        "model": model.model,
        "budget": one.budget,
        "task": ALL[rule],
        "a": one.a,
        "b": one.b,
        "difference": points[0] - points[1],
        "discordant": pd.NA,
    }
    drawn = [model.draws(row, tasks) for row in (one.a, one.b, UNPRUNED)]
    whole = [own for own in drawn if own is not None]
    if len(whole) < 3:
        nothing = {"low": np.nan, "high": np.nan, "p": np.nan, "detectable": np.nan}
        return line | nothing | {"test": "none", "documents": pd.NA}
    gaps = relative_draws(whole[0], whole[2], rule) - relative_draws(whole[1], whole[2], rule)
    low, high = interval(gaps)
    documents = sum(len(model.tasks[task].of(one.a).documents) for task in tasks)
    return line | {
        "low": low,
        "high": high,
        "test": BOOTSTRAP,
        "p": bootstrap_p(gaps),
        "documents": documents,
        "detectable": _from_draws(gaps),
    }


def _from_draws(gaps: np.ndarray) -> float:
    """Return the detectable difference from draws; NaN where two rows never differ."""
    error = float(np.nanstd(gaps)) if not np.isnan(gaps).all() else 0.0
    return detectable_from_error(error) if error > 0 else float("nan")
