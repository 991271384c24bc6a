"""Spearman's correlation of the distance rank with the score rank over methods (paper, Fig. 2)."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from otprune_lmms.reporting.analysis.points import Points
from otprune_lmms.reporting.analysis.ranks import mean_spearman_p, spearman
from otprune_lmms.reporting.analysis.redraws import percentile_interval
from otprune_lmms.results.diagnostics import QUANTITIES, Quantity

FIGURE_2 = ("first_k", "last_k", "uniform", "random", "divprune")
"""Subjects of the paper's Fig. 2."""

PREFIXES = ("first_k", "last_k")
"""Methods that keep one end of the image: far from it and poor at once."""

FEWEST = 3
"""Methods that a rank correlation needs at least."""

COLUMNS = [
    "model",
    "budget",
    "subjects",
    "task",
    "quantity",
    "against",
    "methods",
    "value",
    "low",
    "high",
    "p",
    "permutations",
    "documents",
    "images",
]


def correlations(points: Iterable[Points]) -> pd.DataFrame:
    """Return the correlations of each benchmark, and their means over benchmarks.

    ``value`` is positive where better values (smaller distances, higher rank) come with higher
    scores. [low, high] is the 95 % percentile interval over redraws of images; the methods
    are those that they are. ``p`` is that of `mean_spearman_p`: the methods are permuted, so few
    methods cannot give a small one. Task "all": the mean over benchmarks of equal weight.
    ``subjects``: "all" methods; those of "figure 2" alone, where all five are there; "no ends":
    without `PREFIXES`, where they are there. A line with ``against`` holds the mean correlation of
    its quantity minus that of the other, both under the same redraws.

    Args:
        points: of each model, benchmark and budget.

    Returns:
        `COLUMNS`; NaN where a correlation is undefined (all methods tie).
    """
    groups: dict[tuple[str, str], list[Points]] = defaultdict(list)
    for one in points:
        groups[one.model, one.budget].append(one)
    lines: list[dict[str, object]] = []
    for some in groups.values():
        for subjects, chosen in _subjects(some):
            means = {}
            for quantity in QUANTITIES:
                lines += _benchmarks(subjects, chosen, quantity)
                mean = _mean(chosen, quantity)
                if mean is not None:
                    means[quantity.column] = mean
                    lines.append({"subjects": subjects} | mean.line(chosen[0]))
            lines += [{"subjects": subjects} | line for line in _differences(means, chosen[0])]
    return pd.DataFrame(lines, columns=COLUMNS)


@dataclass(frozen=True, slots=True)
class _Mean:
    """The mean correlation of one quantity over benchmarks.

    Attributes:
        quantity: its column.
        points: benchmarks that take part.
        value: observed.
        drawn: of each redraw, [B].
        p: of `mean_spearman_p`, and the permutations tried.
    """

    quantity: str
    points: tuple[Points, ...]
    value: float
    drawn: np.ndarray
    p: tuple[float, int]

    def line(self, one: Points) -> dict[str, object]:
        """Return the mean as a line of the table."""
        return {
            **_common(one, self.quantity, self.points),
            "value": self.value,
            **percentile_interval(self.drawn),
            "p": self.p[0],
            "permutations": self.p[1],
        }


def _subjects(some: Sequence[Points]) -> Iterable[tuple[str, list[Points]]]:
    present = {method for one in some for method in one.methods}
    choices: dict[str, Callable[[str], bool]] = {"all": lambda method: True}
    if set(FIGURE_2) < present:
        choices["figure 2"] = lambda method: method in FIGURE_2
    if present & set(PREFIXES):
        choices["no ends"] = lambda method: method not in PREFIXES
    for name, keep in choices.items():
        kept = [one.among(np.array([keep(method) for method in one.methods])) for one in some]
        kept = [one for one in kept if len(one.rows) >= FEWEST]
        if kept:
            yield name, kept


def _benchmarks(
    subjects: str, some: Sequence[Points], quantity: Quantity
) -> list[dict[str, object]]:
    lines = []
    for one in some:
        measured, drawn = _oriented(one, quantity)
        p, tried = mean_spearman_p(measured[None], one.score[None])
        lines.append(
            {"subjects": subjects}
            | _common(one, quantity.column, [one])
            | {"task": one.task, "value": float(spearman(measured, one.score))}
            | percentile_interval(spearman(drawn, one.score_drawn))
            | {"p": p, "permutations": tried}
        )
    return lines


def _mean(some: Sequence[Points], quantity: Quantity) -> _Mean | None:
    """Return the mean over the benchmarks on which every method has a score, and not all tie."""
    full = max(len(one.rows) for one in some)
    used, measured, drawn = [], [], []
    for one in some:
        own, redrawn = _oriented(one, quantity)
        if len(one.rows) == full and not np.isnan(spearman(own, one.score)):
            used.append(one)
            measured.append(own)
            drawn.append(spearman(redrawn, one.score_drawn))
    if not used:
        return None
    x, y = np.stack(measured), np.stack([one.score for one in used])
    with warnings.catch_warnings():
        # A redraw in which all methods tie on a benchmark says nothing about that benchmark.
        warnings.simplefilter("ignore", RuntimeWarning)
        redrawn = np.nanmean(np.stack(drawn), axis=0)
    value = float(spearman(x, y).mean())
    return _Mean(quantity.column, tuple(used), value, redrawn, mean_spearman_p(x, y))


def _differences(means: Mapping[str, _Mean], one: Points) -> Iterable[dict[str, object]]:
    """Yield how much better each rival of the first quantity goes with the score."""
    first = means.get(QUANTITIES[0].column)
    for mean in means.values():
        if first is None or mean is first or mean.points != first.points:
            continue
        yield {
            **_common(one, mean.quantity, mean.points),
            "against": first.quantity,
            "value": mean.value - first.value,
            **percentile_interval(mean.drawn - first.drawn),
        }


def _oriented(one: Points, quantity: Quantity) -> tuple[np.ndarray, np.ndarray]:
    """Return a quantity observed [m] and redrawn [B m], more of it being better."""
    name, better = quantity.column, quantity.better
    return better * one.measured[name], better * one.measured_drawn[name]


def _common(one: Points, quantity: str, used: Sequence[Points]) -> dict[str, object]:
    return {
        "model": one.model,
        "budget": one.budget,
        "task": "all",
        "quantity": quantity,
        "methods": len(used[0].rows),
        "documents": sum(point.documents for point in used),
        "images": sum(point.images for point in used),
    }
