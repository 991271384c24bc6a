"""The columns of a table."""

from collections.abc import Mapping, Sequence

import pandas as pd

from otprune_lmms.benchmarks import Benchmark, benchmark
from otprune_lmms.reporting.statistics import averages
from otprune_lmms.reporting.tables.cost import Convention, Cost
from otprune_lmms.reporting.tables.layout import Column

TOKENS = "tokens"
MEAN = "tokens, mean over layers"
RANK = "average rank"
AVERAGE = {
    averages.MEAN_OF_RATIOS: averages.mean_of_ratios,
    averages.RATIO_OF_MEANS: averages.ratio_of_means,
}
"""The relative averages by the name of their rule."""

SHARE = "MAC %"
_UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6))


def heads_of(records: pd.DataFrame, asked: Sequence[str]) -> dict[str, Benchmark]:
    """Return the record of each task: those asked for in their order, then others of the records.

    A task that was asked for and not run is among them.
    """
    metrics = {
        str(task): list(dict.fromkeys(some["metric"]))
        for task, some in records.groupby("task", sort=False)
    }
    # Of a task without records nothing is known; the stand-in has no value anywhere.
    return {
        task: benchmark(task, metrics.get(task, ["-"]))
        for task in dict.fromkeys([*asked, *metrics])
    }


def columns_of(
    heads: Mapping[str, Benchmark], cost: tuple[Column, ...], layers: bool = False
) -> tuple[Column, ...]:
    """Return all columns: tokens, cost if known, scores, relative averages, rank.

    Args:
        heads: records of the tasks.
        cost: columns of cost.
        layers: whether budgets are about all layers, so that their mean is a column.
    """
    names = [head.column for head in heads.values()]
    scores = [
        # Two tasks may stand for one benchmark; then their ids tell them apart.
        Column(head.column if names.count(head.column) == 1 else task, "score", head.digits, task)
        for task, head in heads.items()
    ]
    relative = [
        Column("mean of ratios", "relative", rule=averages.MEAN_OF_RATIOS),
        Column(averages.ratio_of_means_name(heads), "relative", rule=averages.RATIO_OF_MEANS),
    ]
    tokens = [Column(TOKENS, "tokens"), *([Column(MEAN, "tokens")] if layers else [])]
    return (*tokens, *cost, *scores, *relative, Column(RANK, "rank", 2))


def cost_columns(
    costs: Mapping[tuple[str, str], Cost], convention: Convention
) -> tuple[tuple[Column, ...], float]:
    """Return the columns of cost, none where nothing is known, and the unit of the first.

    The unit is the largest of tera, giga and mega in which the dearest row is at least 0.1.
    """
    if not costs:
        return (), 1.0
    most = max(cost.multiply_adds for cost in costs.values())
    prefix, unit = next((one for one in _UNITS if most >= 0.1 * one[1]), _UNITS[-1])
    return (Column(f"{prefix}MAC ({convention})", "cost", 3), Column(SHARE, "cost", 2)), unit
