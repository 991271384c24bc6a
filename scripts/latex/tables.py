"""The study's tables, from formulas.csv, images.csv and distances.csv alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from otprune_lmms.reporting.analysis.ranks import mean_spearman_p, spearman
from otprune_lmms.reporting.statistics.bootstrap import cluster_counts, interval
from otprune_lmms.reporting.statistics.paired import holm

from latex.measures import sign_flip_p, with_interval

REFERENCES = ("random", "divprune")
"""Methods that all others are compared with."""

SMALL_IS_GOOD = ("exact W2", "Gaussian W2, zero mean", "coverage")
QUANTITIES = (*SMALL_IS_GOOD, "effective rank", "ink", "attended", "attention")
ENDS = ("first_k", "last_k")

NOTES = [
    "**exact**: readings that equal the unpruned one character by character. **same**: those that "
    "draw the same (frames, spacing, size and weight of symbols left out). **edit**: edit distance "
    "to the unpruned reading, of the longer one's length, without the same; small is good. "
    "**right**: readings that draw the formula that was drawn. **looped**: that were ended because "
    "they repeated one piece of up to 8 characters over their last 32. **ink**, **attended**: "
    "share kept of the tokens with ink and of the 64 that the unpruned decoder attends to most; "
    "**attention**: share of the unpruned decoder's attention that falls on kept tokens.",
    "",
    "Intervals are 95 %, 2000 redraws of formulas. `- random` and `- divprune` are differences of "
    "`same` in percentage points; p by sign flips, adjusted after Holm over all methods, ratios "
    "and both references. `random` is the mean of three seeds.",
    "",
    "In the kernel's table γ of every variant is chosen for each image so that the mean of γ M_ii "
    "is what it is as released, times the factor named. In the table of swaps tokens come in for "
    "the last picks. Which tokens are attended is known from the unpruned decoder: an oracle, no "
    "method.",
    "",
    "Correlations are Spearman's over methods, positive where the method that is better by the "
    "quantity reads better (lower edit distance), on the formulas of distances.csv; the interval "
    "redraws formulas, p permutes methods. Slopes: change of the edit distance for one standard "
    "deviation of the quantity towards its good side, formula and setting subtracted; negative is "
    "better.",
]


def all_tables(folder: Path) -> dict[str, list[dict]]:
    """Return every table of the page by its heading.

    Args:
        folder: with formulas.csv, images.csv and distances.csv.
    """
    readings = pd.read_csv(folder / "formulas.csv")
    images = pd.read_csv(folder / "images.csv")
    measured = pd.read_csv(folder / "distances.csv")
    methods = readings[readings.part == "methods"]
    adjusted = adjusted_ps(methods)
    tables = {f"Nothing pruned: {len(images)} formulas, 1024 tokens each": unpruned(images)}
    for ratio in sorted(methods.ratio.unique(), reverse=True):
        tables[f"{100 * ratio:g} % of the tokens"] = comparison(methods, ratio, adjusted)
    for part, title in (
        ("kernel", "OTPrune's kernel taken apart, {} % of the tokens"),
        ("swaps", "Tokens taken in and left out, {} % of the tokens"),
    ):
        some = readings[readings.part == part]
        ratio = some.ratio.iloc[0]
        released = methods[(methods.setting == "otprune") & (methods.ratio == ratio)]
        rows = [_row("otprune as released", released)]
        rows += [_row(name, mine) for name, mine in some.groupby("setting", sort=False)]
        tables[title.format(f"{100 * ratio:g}")] = rows
    tables["What goes with the reading, over methods"] = correlations(methods, measured)
    tables["What goes with the reading, within a formula"] = slopes(methods, measured)
    return tables


def unpruned(images: pd.DataFrame) -> list[dict]:
    """Return means over images of all that images.csv holds, with intervals."""
    return [
        {"of an image": name, "mean": with_interval(images[name], 3)}
        for name in images.columns
        if name != "formula"
    ]


def comparison(methods: pd.DataFrame, ratio: float, adjusted: dict) -> list[dict]:
    """Return the rows of one ratio, the best first."""
    some = methods[methods.ratio == ratio]
    rows = []
    for name, mine in some.groupby("setting"):
        row = _row(name, mine)
        for reference in _present(some):
            difference = _differences(some, str(name), reference)
            row[f"- {reference}"] = "" if name == reference else with_interval(difference, 0, 100)
            p = adjusted.get((ratio, name, reference), np.nan)
            row[f"p, {reference}"] = "" if np.isnan(p) else f"{p:.2g}"
        rows.append((-mine.same.mean(), row))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def adjusted_ps(methods: pd.DataFrame) -> dict[tuple[float, str, str], float]:
    """Return p of every method against both references at every ratio, adjusted after Holm."""
    found = {}
    for ratio, some in methods.groupby("ratio"):
        for name in some.setting.unique():
            for reference in _present(some):
                # Each pair of methods is one comparison, not two.
                if name != reference and not (name == "random" and reference == "divprune"):
                    found[ratio, name, reference] = sign_flip_p(_differences(some, name, reference))
    adjusted = holm(np.array(list(found.values())))
    return dict(zip(found, adjusted.tolist(), strict=True))


def correlations(methods: pd.DataFrame, measured: pd.DataFrame) -> list[dict]:
    """Return how the order of methods by a quantity goes with that by edit distance."""
    rows = []
    for ratio in sorted(measured.ratio.unique(), reverse=True):
        for without in ((), ENDS):
            grids = _grids(methods, measured, ratio, without)
            names = grids["edit"].shape[1]
            if names < 3:
                continue
            row: dict[str, Any] = {"kept": f"{100 * ratio:g} %"}
            row["methods"] = f"{names}, no first_k, last_k" if without else f"{names}"
            for quantity in QUANTITIES:
                good = grids[quantity] * (-1 if quantity in SMALL_IS_GOOD else 1)
                row[quantity] = _correlation(good, -grids["edit"])
            rows.append(row)
    return rows


def slopes(methods: pd.DataFrame, measured: pd.DataFrame) -> list[dict]:
    """Return how a formula's edit distance changes with a quantity, formula and setting fixed."""
    keys = ["setting", "ratio", "seed", "formula"]
    both = methods.merge(measured[[*keys, *_measured_names(measured)]], on=keys)
    rows = []
    for title, some in (("all methods", both), ("random draws", both[both.setting == "random"])):
        row: dict[str, Any] = {"among": title}
        for quantity in QUANTITIES:
            good = some[quantity] * (-1 if quantity in SMALL_IS_GOOD else 1)
            row[quantity] = _slope(some, good)
        rows.append(row)
    return rows


def _slope(some: pd.DataFrame, good: pd.Series) -> str:
    frame = some[["formula", "ratio", "setting", "seed"]].assign(x=good, y=some.edit)
    for _ in range(50):  # alternating projections: both means are subtracted
        for by in (["formula", "ratio"], ["ratio", "setting", "seed"]):
            frame[["x", "y"]] -= frame.groupby(by)[["x", "y"]].transform("mean")
    spread = float(np.sqrt((frame.x**2).mean()))
    frame["xx"], frame["xy"] = frame.x**2, frame.x * frame.y
    sums = frame.groupby("formula")[["xx", "xy"]].sum().to_numpy()
    value = spread * sums[:, 1].sum() / sums[:, 0].sum()
    counts = np.concatenate(list(cluster_counts(np.zeros(len(sums), dtype=int), 2000, 0)))
    drawn = counts @ sums
    low, high = interval(spread * drawn[:, 1] / drawn[:, 0])
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _correlation(good: np.ndarray, score: np.ndarray) -> str:
    """Return Spearman's correlation of column means, with interval and p, of [formulas methods]."""
    value = float(spearman(good.mean(0), score.mean(0)))
    counts = np.concatenate(list(cluster_counts(np.zeros(len(good), dtype=int), 2000, 0)))
    low, high = interval(spearman(counts @ good, counts @ score))
    p, _ = mean_spearman_p(good.mean(0)[None], score.mean(0)[None])
    return f"{value:.2f} [{low:.2f}, {high:.2f}] p {p:.2g}"


def _grids(
    methods: pd.DataFrame, measured: pd.DataFrame, ratio: float, without: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Return each quantity as [formulas methods], seeds averaged, formulas that were measured."""
    far = measured[(measured.ratio == ratio) & ~measured.setting.isin(without)]
    mine = methods[(methods.ratio == ratio) & methods.setting.isin(far.setting.unique())]
    far = far[far.setting.isin(mine.setting.unique())]
    mine = mine[mine.formula.isin(far.formula.unique())]
    found = {}
    for quantity in ("edit", *QUANTITIES):
        source = far if quantity in _measured_names(far) else mine
        table = source.pivot_table(index="formula", columns="setting", values=quantity)
        found[quantity] = table.to_numpy()
    return found


def _measured_names(measured: pd.DataFrame) -> list[str]:
    return [name for name in QUANTITIES if name in measured.columns]


def _by_formula(some: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column's values by formula, seeds averaged."""
    return some.groupby("formula")[column].mean().to_numpy()


def _present(some: pd.DataFrame) -> list[str]:
    """Return the references that were read."""
    return [name for name in REFERENCES if (some.setting == name).any()]


def _differences(some: pd.DataFrame, name: str, reference: str) -> np.ndarray:
    own = _by_formula(some[some.setting == name], "same")
    return own - _by_formula(some[some.setting == reference], "same")


def _row(name: object, mine: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"setting": name}
    for column in ("exact", "same"):
        row[f"{column} %"] = with_interval(_by_formula(mine, column), 1, 100)
    row["edit"] = with_interval(_by_formula(mine, "edit"), 3)
    for column in ("right", "looped"):
        row[f"{column} %"] = f"{100 * mine[column].mean():.1f}"
    for column in ("ink", "attended", "attention"):
        row[column] = f"{mine[column].mean():.3f}"
    return row
