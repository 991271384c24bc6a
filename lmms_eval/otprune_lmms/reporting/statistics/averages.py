"""One number for several tasks: two relative averages and the average rank."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.results.frames import Frame, PandasSeries

MEAN_OF_RATIOS = "mean_of_ratios"
RATIO_OF_MEANS = "ratio_of_means"

PAPER_ONE_SHOT = ("VTW", "FastV", "DivPrune", "OTPrune")
"""Methods among which OTPrune's Table 1 takes its one-shot rank."""


def headline_scores(records: Frame) -> Frame:
    """Return every row's headline value of every task, in the unit that tables show.

    Args:
        records: as `read_records` gives them.

    Returns:
        Index (model, row), columns the tasks, all in order of appearance. Seeds of a row are
        averaged; NaN where a seed, or the row, has no value.
    """
    heads = {
        task: benchmark(str(task), list(dict.fromkeys(some["metric"])))
        for task, some in records.groupby("task", sort=False)
    }
    chosen = records[records["metric"] == records["task"].map(lambda task: heads[task].metric)]
    # As numbers, even where no line has a headline metric.
    scale = chosen["task"].map(lambda task: heads[task].scale).astype(float)
    values = chosen.assign(value=chosen["value"] * scale)
    seeds = values.set_index(["model", "row", "setting", "task"])["value"].unstack("task")
    rows = pd.MultiIndex.from_frame(records[["model", "row"]].drop_duplicates())
    means = seeds.groupby(level=["model", "row"], sort=False, observed=True).mean(skipna=False)
    return means.reindex(index=rows, columns=pd.Index(list(heads), name="task"))


def mean_of_ratios(own: PandasSeries, base: PandasSeries) -> float:
    """Return the mean over tasks of own / base in percent, as VisionZip, MMTok and TransPrune do.

    Args:
        own: scores by task.
        base: those of the unpruned model.

    Returns:
        Over the tasks that both have and whose base is not 0; NaN where there is none.
    """
    both = shared_tasks(own, base)
    used = [task for task in both if base[task] != 0]
    return float(100 * (own[used] / base[used]).mean()) if used else float("nan")


def ratio_of_means(own: PandasSeries, base: PandasSeries) -> float:
    """Return mean(own) / mean(base) over tasks in percent, as TOPS and CDPruner do.

    Scores of a large unit are divided first (`Benchmark.ratio_divisor`).

    Args:
        own: scores by task, in the units of our tables.
        base: those of the unpruned model.

    Returns:
        Over the tasks that both have; NaN where there is none, or the base's mean is 0.
    """
    used = shared_tasks(own, base)
    weights = task_weights(used)
    below = float(base[used].to_numpy() @ weights)
    above = float(own[used].to_numpy() @ weights)
    return 100 * above / below if below else float("nan")


def shared_tasks(own: PandasSeries, base: PandasSeries) -> list[str]:
    """Return the tasks for which both have a score, in the order of ``own``."""
    return [task for task in own.index if task in base.index and pd.notna(own[task] + base[task])]


def task_weights(tasks: list[str]) -> np.ndarray:
    """Return what each task's score is multiplied with in a ratio of means."""
    return np.array([1 / benchmark(str(task)).ratio_divisor for task in tasks])


def ratio_of_means_name(tasks: Iterable[str]) -> str:
    """Return what a ratio of means is called, with the tasks whose scores are divided first."""
    divided = [one for one in map(benchmark, tasks) if one.ratio_divisor != 1]
    named = ", ".join(f"{one.column}/{one.ratio_divisor:g}" for one in divided)
    return "ratio of means" + (f" ({named})" if named else "")


def average_rank(scores: Frame) -> PandasSeries:
    """Return each row's mean rank over tasks, 1 the best, as in OTPrune's Table 1.

    A rank depends on the rows that it is taken among: give the methods of one model and budget,
    without the unpruned model.

    Args:
        scores: rows by tasks, higher is better.

    Returns:
        By row; rows with equal scores share the mean of their ranks. Only tasks that every row has
        count; NaN where there is none.
    """
    complete = scores.dropna(axis="columns")
    if complete.empty:
        return pd.Series(np.nan, index=scores.index, name="average_rank")
    ranks = complete.astype(float).rank(ascending=False, method="average").to_numpy()
    return pd.Series(ranks.mean(axis=1), index=scores.index, name="average_rank")


def one_shot_rank(scores: Frame, one_shot: list[bool] | np.ndarray | pd.Series) -> PandasSeries:
    """Return the mean rank among one-shot rows only, as in OTPrune's Table 1.

    Args:
        scores: rows by tasks, higher is better.
        one_shot: for each row, whether its method needs no training or calibration.

    Returns:
        By row; NaN for the others.

    Raises:
        ValueError: not one truth value a row.
    """
    chosen = np.asarray(one_shot, dtype=bool)
    if chosen.shape != (len(scores),):
        raise ValueError(f"one_shot must have {len(scores)} values, got shape {chosen.shape}")
    return average_rank(scores[chosen]).reindex(scores.index).rename("one_shot_rank")
