"""What figures read of a results folder."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.statistics import averages
from otprune_lmms.reporting.tables.by_layer import Key, Profile, over_layers, profiles
from otprune_lmms.reporting.tables.settings import settings_of, with_planned
from otprune_lmms.results.manifest import read_manifest
from otprune_lmms.results.records import UNPRUNED, read_records

RULES = {
    averages.MEAN_OF_RATIOS: averages.mean_of_ratios,
    averages.RATIO_OF_MEANS: averages.ratio_of_means,
}
"""Both relative averages in use."""

Frame = Any
"""A pandas frame or column: pandas' own types do not follow a selection."""

Shown = tuple[str, int]
"""Task and document."""

ImageSource = Callable[[Sequence[Shown]], Mapping[Shown, list[Image.Image]]]
"""Returns the images of documents; those that it cannot find are left out."""


class NotDrawn(ValueError):
    """A figure that the data of a folder does not allow; the message says what is missing."""


class NoImages(NotDrawn):
    """A figure that needs the tasks' images, which are not at hand here."""


@dataclass(frozen=True)
class Results:
    """A results folder.

    Attributes:
        folder: where it lies.
        records: its `read_records`.
        images: images of the tasks' documents; None where there are none to be had.
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
        path = self.folder / "manifest.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    @cached_property
    def scores(self) -> Frame:
        """Headline scores in the unit of the tables, seeds averaged.

        Columns model, row, method (None for unpruned), variant, keep_ratio, k, layer, task,
        column, tokens (`amount` of an image, mean), visual (before pruning), value, low, high
        (95 %; NaN without ``intervals.csv``). Scores that could not be computed are left out.
        """
        found = _scores(self.records)
        if self._schedules is not None:
            found = found.assign(tokens=_over_layers(found, self._schedules))
        return _with_intervals(found, self.optional("intervals.csv"))

    @property
    def amount(self) -> str:
        """What is counted as tokens: those kept, or the mean where budgets are about all layers."""
        return (
            "kept visual tokens" if self._schedules is None else "visual tokens (mean over layers)"
        )

    @cached_property
    def _schedules(self) -> "_Schedules | None":
        """What is known of tokens by layer; None where no budget is about all layers."""
        if not self.manifest:
            return None
        manifest = read_manifest(self.folder)
        settings = with_planned(settings_of(self.records), manifest.models, manifest.planned)
        if not any(one.by_layer for one in settings):
            return None
        known = profiles(settings, self.records, manifest, self.folder)
        return _Schedules(
            known, {name: one["layers"] or 0 for name, one in manifest.shapes.items()}
        )

    @cached_property
    def averages(self) -> Frame:
        """Relative averages in percent: model, row, rule, value, low, high.

        From ``averages.csv``; without it from the records, and then without intervals.
        """
        found = self.optional("averages.csv")
        return _averages(averages.scores(self.records)) if found is None else found

    @cached_property
    def diagnostics(self) -> Frame:
        """What each cell keeps of each image: ``diagnostics.parquet``."""
        path = self.folder / "diagnostics.parquet"
        if not path.is_file():
            raise NotDrawn("no diagnostics.parquet (otprune analyze makes it)")
        return pd.read_parquet(path)

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
        return pd.read_csv(path) if path.is_file() else None


@dataclass(frozen=True)
class _Schedules:
    """Tokens by layer where a schedule drops them, and the layers of each model."""

    profiles: Mapping[Key, Profile]
    layers: Mapping[str, int]


def read_results(folder: Path, images: ImageSource | None = None) -> Results:
    """Return a results folder.

    Raises:
        ValueError: it has no records, or of another format.
    """
    return Results(folder, read_records(folder / "records.csv"), images)


def variant(row: str, method: str, keep_ratio: float, k: float, layer: int) -> str:
    """Return what the label of a row says besides method, budget and layer: "gamma0.05"."""
    budgets = [f"{keep_ratio:g}", repr(float(keep_ratio))] if k != k else [f"k{k:.0f}"]
    rest = row.removeprefix(method)
    for budget in budgets:
        if rest == f"-{budget}" or rest.startswith(f"-{budget}-"):
            rest = rest[len(budget) + 1 :]
            # Of all layers or not, it is the budget; of multiply-adds is another matter.
            rest = re.sub(r"^-average(?=-|$)", "", rest)
            break
    rest = re.sub(rf"^-layer{layer}(?=-|$)", "", rest)
    # Long labels end in a hash, which differs between budgets.
    return re.sub(r"-[0-9a-f]{8}$", "", rest).removeprefix("-")


def spoken(text: str) -> str:
    """Return a variant as a reader says it: "gamma0.05" is "γ = 0.05"."""
    greek = {"gamma": "γ", "alpha": "α", "beta": "β", "epsilon": "ε"}
    parts = []
    for part in re.split(r"-(?=[A-Za-z_])", text):
        found = re.fullmatch(r"([A-Za-z_]+?)(-?[\d.]+(?:e-?\d+)?)", part)
        plain = part.replace("_", " ")
        parts.append(f"{greek.get(found[1], found[1])} = {found[2]}" if found else plain)
    return ", ".join(part for part in parts if part)


def _scores(records: Frame) -> Frame:
    values = averages.scores(records).stack().rename("value").dropna()
    if values.empty:
        raise NotDrawn("records.csv has no scores")
    heads = {
        task: benchmark(str(task), list(dict.fromkeys(some["metric"]))).column
        for task, some in records.groupby("task", sort=False)
    }
    keys = ["model", "row", "task"]
    about = records.drop_duplicates([*keys, "setting"]).groupby(keys, sort=False)
    found = about[["method", "keep_ratio", "k", "layer"]].first()
    found[["tokens", "visual"]] = about[["kept_tokens", "visual_tokens"]].mean()
    found = found.join(values, how="inner").reset_index()
    pruned = found["method"].notna()
    found["method"] = found["method"].astype(object).where(pruned, None)
    labels = found[["row", "method", "keep_ratio", "k", "layer"]].itertuples(index=False)
    found["variant"] = [variant(*label) if label.method else "" for label in labels]
    return found.assign(column=found["task"].map(heads))


def _over_layers(scores: Frame, known: _Schedules) -> list[float]:
    """Return the tokens of an image that enter a layer, mean over layers, for each score.

    Those kept where the layers are not known.
    """
    found = []
    for line in scores.itertuples():
        profile = known.profiles.get((line.model, line.row, line.task))
        layers = known.layers.get(line.model, 0)
        if profile is not None:
            found.append(profile.mean)
        elif layers and line.tokens == line.tokens:
            found.append(over_layers(int(line.layer), layers, line.tokens, line.visual))
        else:
            found.append(line.tokens)
    return found


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
