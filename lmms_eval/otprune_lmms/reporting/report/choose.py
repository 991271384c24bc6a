"""Chooses the samples of a report: those of each task on which the settings disagree most."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.results.frames import Frame


def choose_samples(samples: Frame, per_task: int, recorded: Collection[str] = ()) -> Frame:
    """Return the documents to show, by task in order of appearance.

    Those on which the values of the settings are spread most, averaged over models; of equal ones
    the first document. Half of them, rounded up, are taken among the images whose kept patches were
    recorded, where there are enough. Documents without a value come last.

    Args:
        samples: as `read_samples` gives them.
        per_task: documents of each task, at most.
        recorded: clusters of images with kept patches.

    Returns:
        Columns task, doc_id and spread (the standard deviation over settings), by task and spread.

    Raises:
        ValueError: per_task below 1.
    """
    if per_task < 1:
        raise ValueError(f"per_task must be at least 1, got {per_task}")
    each = samples.groupby(["task", "doc_id", "cluster", "model"], sort=False)["value"]
    # Rounding errors between equal values must not decide the order.
    spread = each.std(ddof=0).round(9).groupby(["task", "doc_id", "cluster"], sort=False).mean()
    found = spread.rename("spread").reset_index()
    places = {task: place for place, task in enumerate(dict.fromkeys(samples["task"]))}
    found["place"] = found["task"].map(places)
    order = ["place", "spread", "doc_id"]
    ascending = [True, False, True]
    found = found.sort_values(order, ascending=ascending, na_position="last")
    shown = found[found["cluster"].isin(recorded)].groupby("place").head(-(-per_task // 2))
    rest = found.drop(shown.index)
    both = pd.concat([shown, rest]).groupby("place").head(per_task)
    both = both.sort_values(order, ascending=ascending, na_position="last")
    return both[["task", "doc_id", "spread"]].reset_index(drop=True)


def disagree(answers: Frame) -> bool:
    """Return whether the settings of any model disagree on a document.

    They do if one is right and another wrong, or by how much; where no answer is all right or all
    wrong (captions), if the answers differ.

    Args:
        answers: all samples of one document of one task.
    """
    by_value = benchmark(str(answers["task"].iloc[0])).best_share is not None
    column = "value" if by_value else "answer"
    counts = answers.groupby("model")[column].nunique(dropna=True)
    return bool((counts > 1).any())


def counts(samples: Frame) -> Mapping[str, int]:
    """Return how many documents each task has."""
    return {
        str(task): int(np.unique(some["doc_id"]).size)
        for task, some in samples.groupby("task", sort=False)
    }
