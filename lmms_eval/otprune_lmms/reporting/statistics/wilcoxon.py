"""Wilcoxon's signed-rank test over tasks, as OTPrune's paper makes it."""

from typing import Any, Literal, cast

import numpy as np
from scipy import stats

from otprune_lmms.reporting.statistics.averages import shared_tasks
from otprune_lmms.results.frames import PandasSeries

FEWEST_TASKS = 6
"""With fewer pairs no two-sided exact p is below 0.05."""


def wilcoxon_over_tasks(
    own: PandasSeries,
    other: PandasSeries,
    *,
    alternative: Literal["greater", "less", "two-sided"] = "greater",
    method: Literal["exact", "approx"] = "approx",
    correction: bool = True,
) -> float:
    """Return the p-value of the signed-rank test on relative differences (own - other) / other.

    The defaults are those that give the paper's p = 0.028 from the 11 benchmarks of its
    LLaVA-1.5-13B block. Differences must be relative: a large unit would drown all others. The
    tasks are the sample here, not the documents: it asks whether a method would win on further
    benchmarks of the kind, and 11 of them are a small sample.

    Args:
        own: scores by task.
        other: those of the method compared with.
        alternative: greater means that own is better.
        method: the exact distribution (no ties), or the normal approximation.
        correction: continuity correction of the approximation.

    Returns:
        Over the tasks that both have and whose ``other`` is not 0; differences of 0 are left out
        (Wilcoxon's rule). NaN where nothing is left.
    """
    used = [task for task in shared_tasks(own, other) if other[task] != 0]
    gain = ((own[used] - other[used]) / other[used]).to_numpy(float)
    gain = gain[gain != 0]
    if not len(gain):
        return float("nan")
    if method == "exact":
        result = stats.wilcoxon(gain, alternative=alternative, method="exact")
    else:
        result = stats.wilcoxon(
            gain, alternative=alternative, method="asymptotic", correction=correction
        )
    return float(np.asarray(cast(Any, result).pvalue))
