"""The columns of a table."""

from collections.abc import Iterable, Mapping, Sequence

from otprune_lmms.benchmarks import Benchmark, benchmark
from otprune_lmms.reporting.statistics.averages import (
    MEAN_OF_RATIOS,
    RATIO_OF_MEANS,
    mean_of_ratios,
    ratio_of_means,
    ratio_of_means_name,
)
from otprune_lmms.reporting.tables.layout import Column
from otprune_lmms.reporting.tables.prefill import PrefillCost
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.records import Convention

TOKENS = "tokens"
LAYER_MEAN = "tokens, mean over layers"
RANK = "average rank"
AVERAGE = {
    MEAN_OF_RATIOS: mean_of_ratios,
    RATIO_OF_MEANS: ratio_of_means,
}
"""The relative averages by the name of their rule."""

SHARE = "MAC %"
_UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6))


def heads_of(records: Frame, planned: Sequence[str]) -> dict[str, Benchmark]:
    """Return the record of each task: planned tasks in their order, then others of the records.

    A planned task that was not run is among them.
    """
    metrics = {
        str(task): list(dict.fromkeys(some["metric"]))
        for task, some in records.groupby("task", sort=False)
    }
    # Of a task without records nothing is known; the stand-in has no value anywhere.
    tasks = dict.fromkeys([*planned, *metrics])
    return {task: benchmark(task, metrics.get(task, ["-"])) for task in tasks}


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
        # Two tasks may stand for one benchmark; then their ids are the headings.
        Column(head.column if names.count(head.column) == 1 else task, "score", head.digits, task)
        for task, head in heads.items()
    ]
    relative = [
        Column("mean of ratios", "relative", rule=MEAN_OF_RATIOS),
        Column(ratio_of_means_name(heads), "relative", rule=RATIO_OF_MEANS),
    ]
    tokens = [Column(TOKENS, "tokens"), *([Column(LAYER_MEAN, "tokens")] if layers else [])]
    return (*tokens, *cost, *scores, *relative, Column(RANK, "rank", 2))


def cost_columns(
    costs: Iterable[PrefillCost], convention: Convention
) -> tuple[tuple[Column, ...], float]:
    """Return the columns of cost, none where nothing is known, and the unit of the first.

    The unit is the largest of tera, giga and mega in which the largest cost is at least 0.1.
    """
    known = [cost.multiply_adds for cost in costs if cost.multiply_adds is not None]
    if not known:
        return (), 1.0
    most = max(known)
    prefix, unit = next((one for one in _UNITS if most >= 0.1 * one[1]), _UNITS[-1])
    return (Column(f"{prefix}MAC ({convention})", "cost", 3), Column(SHARE, "cost", 2)), unit
