"""Loyalty: the share of answers that agree with the unpruned model's."""

import numpy as np
import pandas as pd

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.analysis.redraws import percentile_interval, redraws
from otprune_lmms.results.frames import Frame

COLUMNS = ["model", "row", "task", "value", "low", "high", "documents", "clusters"]


def loyalty(samples: Frame, draws: int) -> pd.DataFrame:
    """Return the share of answers that are the unpruned model's, in percent.

    Answers are compared after the task's filters, letter by letter. Agreement needs no reference
    answer; it says how much pruning changes, not whether for the better. Seeds are averaged.
    [low, high] is the 95 % percentile interval over redraws of images. Task "all" is the mean over
    benchmarks of equal weight, captions left out: two good captions are seldom the same words.

    Args:
        samples: of `read_samples`.
        draws: redraws.

    Returns:
        `COLUMNS`; no rows of models without an unpruned row.
    """
    lines = []
    for model, of_model in samples.groupby("model", sort=False):
        own: dict[str, list[tuple[np.ndarray, int, int]]] = {}
        for task, some in of_model.groupby("task", sort=False):
            agreed = _agreed(some)
            drawn, documents, clusters = _drawn(str(task), agreed, draws)
            for row in drawn:
                lines.append(_line(model, row, task, drawn[row], documents, clusters))
                if benchmark(str(task)).kind != "caption":
                    own.setdefault(row, []).append((drawn[row], documents, clusters))
        tasks = max((len(many) for many in own.values()), default=0)
        for row, many in own.items():
            if len(many) == tasks:
                values, documents, clusters = zip(*many, strict=True)
                mean = np.mean(values, axis=0)
                lines.append(_line(model, row, "all", mean, sum(documents), sum(clusters)))
    return pd.DataFrame(lines, columns=COLUMNS)


def _agreed(samples: Frame) -> Frame:
    """Return one row a document: its cluster, and for each row the share that agrees."""
    base = samples[samples["method"].isna()].drop_duplicates("doc_id").set_index("doc_id")
    own = samples[samples["doc_id"].isin(base.index)]
    same = own["answer"].to_numpy() == base["answer"].loc[own["doc_id"]].to_numpy()
    each = own.assign(same=same.astype(float)).pivot_table(
        index="doc_id", columns="row", values="same", sort=False
    )
    # A row that lacks documents is not comparable.
    each = each[[row for row in dict.fromkeys(own["row"]) if each[row].notna().all()]]
    return each.assign(cluster=base["cluster"].loc[each.index])


def _drawn(task: str, agreed: Frame, draws: int) -> tuple[dict[str, np.ndarray], int, int]:
    """Return for each row its agreement in percent, observed first, then redrawn, [1 + B]."""
    if agreed.empty:
        return {}, 0, 0
    codes, clusters = pd.factorize(agreed["cluster"])
    counts = redraws(task, np.zeros(len(clusters), dtype=int), draws)[:, codes]
    weights = np.vstack([np.ones(len(agreed)), counts])
    rows = agreed.drop(columns="cluster")
    shares = 100 * (weights @ rows.to_numpy(float)) / weights.sum(1, keepdims=True)
    return dict(zip(rows.columns, shares.T, strict=True)), len(agreed), len(clusters)


def _line(
    model: object, row: str, task: object, drawn: np.ndarray, documents: int, clusters: int
) -> dict[str, object]:
    return {
        "model": model,
        "row": row,
        "task": task,
        "value": float(drawn[0]),
        **percentile_interval(drawn[1:]),
        "documents": documents,
        "clusters": clusters,
    }
