"""A results folder as figures read it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.documents import DocumentKey
from otprune_lmms.reporting.analysis.points import line_budgets
from otprune_lmms.reporting.figures.style import drawn
from otprune_lmms.reporting.statistics import averages
from otprune_lmms.reporting.tables.settings import settings_of
from otprune_lmms.results.checked import Column, Kind, read_csv
from otprune_lmms.results.columns import OWN_SCHEDULE, Budget
from otprune_lmms.results.costs import COLUMNS as COST_COLUMNS
from otprune_lmms.results.diagnostics import DIAGNOSTICS, read_diagnostics
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import MANIFEST, read_content
from otprune_lmms.results.names import Names, names_of
from otprune_lmms.results.records import RECORDS, UNPRUNED, read_records

RULES = {
    averages.MEAN_OF_RATIOS: averages.mean_of_ratios,
    averages.RATIO_OF_MEANS: averages.ratio_of_means,
}
"""Both relative averages in use."""

ABOUT = ("line", "method", "variant", "settings", "budget", "keep_ratio", "k", "match", "layer")
"""Columns of `Results.scores` that say what a row is; ``line`` names the line of a figure."""

_TEXT, _TEXT_OR_NONE = Column(Kind.TEXT), Column(Kind.TEXT, empty=True)
_NUMBER = Column(Kind.NUMBER, empty=True)
_ENDS = dict.fromkeys(("value", "low", "high"), _NUMBER)

_TABLES: Mapping[str, Mapping[str, Column]] = {
    "averages.csv": {**dict.fromkeys(("model", "row", "rule"), _TEXT), **_ENDS},
    "intervals.csv": {**dict.fromkeys(("model", "row", "task"), _TEXT), **_ENDS},
    "pairs.csv": {
        **dict.fromkeys(("model", "budget", "task", "a", "b"), _TEXT),
        "test": _TEXT_OR_NONE,
        **dict.fromkeys(("difference", "low", "high", "p", "p_holm"), _NUMBER),
        **dict.fromkeys(("documents", "discordant"), _NUMBER),
    },
    "analysis.csv": {
        **dict.fromkeys(("analysis", "model"), _TEXT),
        **dict.fromkeys(("budget", "row", "subjects", "task", "quantity"), _TEXT_OR_NONE),
        **_ENDS,
        **dict.fromkeys(("p", "methods"), _NUMBER),
    },
    "cost.csv": {
        **dict.fromkeys(("model", "row"), _TEXT),
        **dict.fromkeys(
            ("batch", "kept_tokens", *(name for name in COST_COLUMNS if "_ms" in name)),
            Column(Kind.NUMBER, empty=True, needed=False),
        ),
    },
}
"""What columns of the folder's other CSVs must hold, as far as they are shown."""

ImageSource = Callable[[Sequence[DocumentKey]], Mapping[DocumentKey, list[Image.Image]]]
"""Returns the images of documents; those that it cannot find are left out."""


_HEADING = 24
"""Letters of a benchmark's name above a panel."""


class NotDrawn(ValueError):
    """A figure that the data of a folder does not allow; the message says what is missing."""


class NoImages(NotDrawn):
    """A figure that needs the documents' images, which are not at hand."""


@dataclass(frozen=True)
class Results:
    """A results folder.

    Attributes:
        folder: its path.
        records: from `read_records`.
        images: images of the documents; None if there are none.
    """

    folder: Path
    records: Frame
    images: ImageSource | None = None

    @property
    def models(self) -> list[str]:
        """Models, in order of appearance."""
        return list(dict.fromkeys(self.records["model"]))

    @property
    def methods(self) -> list[str]:
        """Pruning methods, in order of appearance."""
        return list(dict.fromkeys(self.records["method"].dropna()))

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The run's manifest; empty where there is none."""
        return read_content(self.folder) if (self.folder / MANIFEST).exists() else {}

    @cached_property
    def names(self) -> Names:
        """What readers are shown as the names of the settings."""
        return names_of(self.records, self.manifest.get("configs", ()))

    @cached_property
    def budgets(self) -> Mapping[str, Budget]:
        """Budgets of the pruned rows, by `Budget.label`."""
        pruned = self.records[self.records["method"].notna()]
        return {budget.label: budget for budget in line_budgets(pruned)}

    @cached_property
    def scores(self) -> Frame:
        """Headline scores in the unit of the tables, seeds averaged.

        Columns model, row, those of `ABOUT` (method None for the unpruned model), task, column,
        tokens (`amount` of an image, mean), visual (before pruning), value, low, high (95 %; NaN
        without ``intervals.csv``). Scores that could not be computed are left out.
        """
        found = _scores(self.records, self._by_layer)
        found.insert(2, "line", [self.names.of(row).line for row in found["row"]])
        return _with_intervals(found, self.optional("intervals.csv"))

    @property
    def amount(self) -> str:
        """What is counted as tokens: the kept ones, or the mean over layers if budgets count it."""
        return "visual tokens (mean over layers)" if self._by_layer else "kept visual tokens"

    @cached_property
    def _by_layer(self) -> bool:
        """Whether some budget counts tokens over all layers."""
        return any(one.by_layer for one in settings_of(self.records))

    @cached_property
    def averages(self) -> Frame:
        """Relative averages in percent: model, row, rule, value, low, high.

        From ``averages.csv``; without it from the records, and then without intervals.
        """
        found = self.optional("averages.csv")
        return _averages(averages.headline_scores(self.records)) if found is None else found

    @cached_property
    def diagnostics(self) -> Frame:
        """What each setting keeps of each image: ``diagnostics.parquet``."""
        if not (self.folder / DIAGNOSTICS).is_file():
            raise NotDrawn(f"no {DIAGNOSTICS} (otprune analyze makes it)")
        return read_diagnostics(self.folder)

    def table(self, name: str, maker: str) -> Frame:
        """Return a CSV of the folder.

        Raises:
            NotDrawn: it is not there; the message names the command that makes it.
        """
        found = self.optional(name)
        if found is None or found.empty:
            raise NotDrawn(f"no {name} ({maker} makes it)")
        return found

    def optional(self, name: str) -> Frame | None:
        """Return a CSV of the folder, None where there is none."""
        path = self.folder / name
        if not path.is_file():
            return None
        return read_csv(path, _TABLES[name])


def read_results(folder: Path, images: ImageSource | None = None) -> Results:
    """Return a results folder.

    Raises:
        ValueError: it has no records, or of another format.
    """
    return Results(folder, read_records(folder / RECORDS), images)


def variants_of(table: Frame) -> list[str]:
    """Return what distinguishes each line from the method's default, apart from budget and layer.

    JSON of its changed settings, and of ``match`` where the budget is about multiply-adds; lines of
    one method and one variant are drawn as one line.
    """
    found = []
    for changed, match in zip(table["changed_settings"], table["match"], strict=True):
        settings = {} if pd.isna(changed) else json.loads(changed)
        found.append(json.dumps(settings | ({"match": match} if match == "flops" else {})))
    return found


def heading(task: object, metrics: Sequence[str] | None = None) -> str:
    """Return what figures call a task."""
    return drawn(benchmark(str(task), metrics).column, _HEADING)


def budget_names(table: Frame) -> dict[str, list[str]]:
    """Return the rows of each budget, smallest first, by what figures call the budget.

    Schedules without a budget come last, together.

    Args:
        table: of pruned rows, with row, tokens and the columns of a budget.
    """
    found: dict[str, list[str]] = {}
    for name, own in _budgets(table):
        found[name] = list(dict.fromkeys(own["row"]))
    return found


def _budgets(table: Frame) -> Iterator[tuple[str, Frame]]:
    budgets = line_budgets(table)
    known = {budget.label: budget for budget in budgets}
    labels = [budget.label for budget in budgets]
    groups = dict(list(table.groupby(pd.Series(labels, table.index), sort=False)))

    def order(label: str) -> tuple[bool, float]:
        return label == OWN_SCHEDULE, groups[label]["tokens"].mean()

    for label in sorted(groups, key=order):
        own, budget = groups[label], known[label]
        if budget.own_schedule:
            yield "own schedules", own
            continue
        tokens = own["tokens"].round().unique()
        exact = f"{tokens[0]:.0f}" if len(tokens) == 1 else f"about {own['tokens'].mean():.0f}"
        share = "" if budget.keep_ratio is None else f"{100 * budget.keep_ratio:.3g} %"
        about = "of multiply-adds" if budget.multiply_adds else ""
        more = " ".join(part for part in (share, about) if part)
        yield f"{exact} tokens" + (f" ({more})" if more else ""), own


def _scores(records: Frame, by_layer: bool) -> Frame:
    values = averages.headline_scores(records).stack().rename("value").dropna()
    if values.empty:
        raise NotDrawn(f"{RECORDS} has no scores")
    heads = {
        task: heading(task, list(dict.fromkeys(some["metric"])))
        for task, some in records.groupby("task", sort=False)
    }
    keys = ["model", "row", "task"]
    whole = records.drop_duplicates([*keys, "setting"])
    whole = whole.assign(
        variant=variants_of(whole), budget=[budget.label for budget in line_budgets(whole)]
    )
    about = whole.groupby(keys, sort=False)
    found = about[list(ABOUT[1:])].first()
    found[["tokens", "visual"]] = about[["kept_tokens", "visual_tokens"]].mean()
    if by_layer:
        found["tokens"] = about["layer_tokens"].mean().fillna(found["tokens"])
    found = found.join(values, how="inner").reset_index()
    pruned = found["method"].notna()
    found["method"] = found["method"].astype(object).where(pruned, None)
    return found.assign(column=found["task"].map(heads))


def _with_intervals(scores: Frame, intervals: Frame | None) -> Frame:
    """Return scores with low and high; intervals of other scores than these do not count."""
    if intervals is None or intervals.empty:
        return scores.assign(low=float("nan"), high=float("nan"))
    keys = ["model", "row", "task"]
    other = intervals[[*keys, "value", "low", "high"]].rename(columns={"value": "of"})
    found = scores.merge(other, "left", keys)
    same = (found["of"] - found["value"]).abs() <= 1e-6 * found["value"].abs().clip(lower=1)
    found.loc[~same, ["low", "high"]] = float("nan")
    return found.drop(columns="of")


def _averages(scores: Frame) -> Frame:
    """Return both relative averages of each row whose model has an unpruned one."""
    lines = []
    for model, row in scores.index:
        if (model, UNPRUNED) not in scores.index:
            continue
        own, base = scores.loc[(model, row)], scores.loc[(model, UNPRUNED)]
        for rule, average in RULES.items():
            lines.append({"model": model, "row": row, "rule": rule, "value": average(own, base)})
    nothing = float("nan")
    columns = ["model", "row", "rule", "value"]
    return pd.DataFrame(lines, columns=columns).assign(low=nothing, high=nothing)
