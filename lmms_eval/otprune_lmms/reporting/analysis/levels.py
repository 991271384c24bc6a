"""Levels: the mean distances of each setting, and its time of a selection."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pandas as pd

from otprune_lmms.reporting.analysis.points import Points, with_budget
from otprune_lmms.reporting.analysis.redraws import percentile_interval
from otprune_lmms.results.diagnostics import QUANTITIES
from otprune_lmms.results.frames import Frame

COLUMNS = ["model", "budget", "row", "quantity", "value", "low", "high", "images"]


def levels(points: Iterable[Points]) -> pd.DataFrame:
    """Return the mean of each quantity over benchmarks of equal weight, by setting.

    [low, high] is the 95 % percentile interval over redraws of images.
    """
    found: dict[tuple[str, str, str], list[tuple[Points, int]]] = defaultdict(list)
    for one in points:
        for place, row in enumerate(one.rows):
            found[one.model, one.budget, row].append((one, place))
    lines = []
    for (model, size, row), many in found.items():
        for quantity in QUANTITIES:
            name = quantity.column
            values = [one.measured[name][place] for one, place in many]
            drawn = np.mean([one.measured_drawn[name][:, place] for one, place in many], axis=0)
            lines.append(
                {"model": model, "budget": size, "row": row, "quantity": name}
                | {"value": float(np.mean(values)), **percentile_interval(drawn)}
                | {"images": sum(one.images for one, _ in many)}
            )
    return pd.DataFrame(lines, columns=COLUMNS)


def times(diagnostics: Frame, seconds: Frame) -> pd.DataFrame:
    """Return the median time of one selection in ms by setting; low and high are quartiles.

    Args:
        diagnostics: of the images.
        seconds: of the same selections (`results.times`).
    """
    lines = []
    keys = ["model", "setting", "task", "doc_id", "image"]
    timed = diagnostics.merge(seconds, on=keys, how="inner", validate="one_to_one")
    each = with_budget(timed).groupby(["model", "budget", "row"], sort=False)
    for (model, size, row), some in each:
        low, value, high = 1000 * some["seconds"].quantile([0.25, 0.5, 0.75]).to_numpy()
        lines.append(
            {"model": model, "budget": size, "row": row, "quantity": "selection_ms"}
            | {"value": value, "low": low, "high": high}
            | {"images": some.drop_duplicates(["task", "cluster", "image"]).shape[0]}
        )
    return pd.DataFrame(lines, columns=COLUMNS)
