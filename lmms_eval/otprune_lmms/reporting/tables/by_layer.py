"""How many visual tokens each layer processes: measured where they are dropped once, else planned.

A method that drops tokens at several layers leaves what its schedule says, so its settings, the
image's size and the decoder tell the tokens of every layer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from otprune_lmms.reporting.tables.settings import Setting
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import Manifest
from otprune_lmms.results.samples import SAMPLES

Key = tuple[str, str, str]
"""Model, row and task."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Visual tokens of a mean prompt.

    Attributes:
        tokens: that enter each layer, of all images together.
        images: in the prompt.
    """

    tokens: tuple[float, ...]
    images: float

    @property
    def mean(self) -> float:
        """Tokens of an image that enter a layer, mean over the layers."""
        return math.fsum(self.tokens) / len(self.tokens) / self.images


def profiles(
    settings: Sequence[Setting],
    records: pd.DataFrame,
    manifest: Manifest,
    folder: Path | None = None,
) -> dict[Key, Profile]:
    """Return what the schedules of some settings let each layer process, by task.

    Settings that drop tokens once are left out, and models whose decoder the manifest does not
    have. An image's end-of-row tokens count like patches, also where they are kept beside the
    budget.

    Args:
        settings: of a table.
        records: as `read_records` returns them.
        manifest: of the same folder.
        folder: of the results, for the number of images in a prompt.
    """
    asked = [one for one in settings if one.by_layer and one.settings and one.cells]
    sizes = _sizes(asked, records, folder) if asked else {}
    found = {}
    for one in asked:
        shape = manifest.shapes.get(one.model)
        plan = _plan(one.settings, shape) if shape else None
        for task in one.tasks if plan else ():
            prompts = sizes.get((one.model, one.label, task), [])
            if plan and prompts:
                found[one.model, one.label, task] = _profile(prompts, plan)
    return found


def mean_over_layers(
    one: Setting, known: Mapping[Key, Profile], manifest: Manifest
) -> float | None:
    """Return the tokens of an image that enter a layer, mean over layers and tasks."""
    shape = manifest.shapes.get(one.model)
    layers = (shape or {}).get("layers")
    own = [known[key].mean for task in sorted(one.tasks) if (key := _key(one, task)) in known]
    if own:
        return math.fsum(own) / len(own)
    # A schedule of which nothing is known has no single layer either.
    if not layers or one.kept is None or one.visual is None or one.own_schedule:
        return None
    return over_layers(one.layer, layers, one.kept, one.visual)


def over_layers(layer: int, layers: int, kept: float, visual: float) -> float:
    """Return the tokens that enter a layer, mean over layers, where they are dropped once."""
    before = min(layer, layers)
    return (before * visual + (layers - before) * kept) / layers


def _key(one: Setting, task: str) -> Key:
    return one.model, one.label, task


Plan = Callable[[int], Sequence[int]]
"""From the tokens of an image to those that enter each layer."""


def _plan(settings: Mapping[str, Any], shape: Mapping[str, int | None]) -> Plan | None:
    """Return what a layer pruner lets pass; None for any other method."""
    # Here, and not above: these load torch, which only schedules need.
    from otprune.cost import DecoderShape
    from otprune_lmms.pruning_config import Cell

    try:
        pruning = Cell.make(**settings).pruning()
    except (ValueError, TypeError):
        # Of a version of the package that had other settings.
        return None
    if pruning is None or pruning.pruner is None:
        return None
    decoder = DecoderShape(**shape)  # type: ignore[arg-type]
    return cache(lambda n: pruning.tokens_by_layer(n, decoder))


def _sizes(
    settings: Sequence[Setting], records: pd.DataFrame, folder: Path | None
) -> dict[Key, list[tuple[int, int]]]:
    """Return for each prompt how many images it has and the tokens of each.

    Without samples one prompt with an image of mean size stands for all.
    """
    names = ["model", "row", "task"]
    # Frame: pandas' types do not follow a selection.
    own: Frame = records[[*names, "visual_tokens"]]
    means = own.groupby(names, sort=False)["visual_tokens"].mean().dropna()
    size = {key: float(mean) for key, mean in means.items() if mean}
    path = None if folder is None else folder / SAMPLES
    if path is None or not path.is_file():
        return {key: [(1, round(mean))] for key, mean in size.items()}
    some: Frame = pd.read_parquet(path, columns=[*names, "candidates"])
    rows = {(one.model, one.label) for one in settings}
    found: dict[Key, list[tuple[int, int]]] = {}
    for key, own in some.groupby(names, sort=False):
        model, row, task = map(str, key)
        mean = size.get((model, row, task))
        if (model, row) in rows and mean:
            images = [max(1, round(count / mean)) for count in own["candidates"]]
            found[model, row, task] = [
                (number, round(count / number))
                for number, count in zip(images, own["candidates"], strict=True)
                if count
            ]
    return found


def _profile(prompts: Sequence[tuple[int, int]], plan: Plan) -> Profile:
    each = [[images * count for count in plan(n)] for images, n in prompts]
    tokens = tuple(math.fsum(layer) / len(each) for layer in zip(*each, strict=True))
    return Profile(tokens, math.fsum(images for images, _ in prompts) / len(prompts))
