"""What the prefill of each row costs, by the formula of `otprune.cost`, from its tokens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from otprune_lmms.reporting.tables.by_layer import Key, Profile
from otprune_lmms.reporting.tables.settings import Setting
from otprune_lmms.results.manifest import Manifest
from otprune_lmms.results.records import UNPRUNED
from otprune_lmms.results.samples import SAMPLES

Convention = Literal["2ndm", "3ndm"]

Tokens = Mapping[tuple[str, str, str], tuple[float, float]]
"""Visual tokens of a prompt (left, before pruning), means, by model, row and task."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The prefill of a row.

    Attributes:
        multiply_adds: mean over tasks.
        share: mean over tasks of pruned / unpruned, in percent, as OTPrune's and DivPrune's tables
            print it; None without an unpruned row.
    """

    multiply_adds: float
    share: float | None


def tokens_of(records: pd.DataFrame, folder: Path | None = None) -> Tokens:
    """Return the visual tokens of a prompt.

    From the folder's samples, where it has some: they count the tokens of all images of a prompt.
    Else from the records, which hold those of one image.
    """
    names = ["model", "row", "task"]
    path = None if folder is None else folder / SAMPLES
    if path is not None and path.is_file():
        some = pd.read_parquet(path, columns=[*names, "kept", "candidates"])
        some = some.rename(columns={"kept": "kept_tokens", "candidates": "visual_tokens"})
    else:
        some = records.drop_duplicates([*names, "setting"])
    counts = some[[*names, "kept_tokens", "visual_tokens"]].dropna()
    counts = counts.astype({"kept_tokens": float, "visual_tokens": float})
    means = counts.pivot_table(index=names, aggfunc="mean").reset_index()
    return {
        (str(model), str(row), str(task)): (kept, visual)
        for model, row, task, kept, visual in means.itertuples(index=False, name=None)
    }


def costs(
    settings: Sequence[Setting],
    tokens: Tokens,
    manifest: Manifest,
    convention: Convention,
    profiles: Mapping[Key, Profile] | None = None,
) -> dict[tuple[str, str], Cost]:
    """Return the cost of each row whose model's decoder and text tokens the manifest has.

    Args:
        settings: of a table.
        tokens: see `tokens_of`.
        manifest: of the same folder.
        convention: of `otprune.cost`.
        profiles: tokens of each layer, where a schedule drops them.

    Raises:
        ValueError: a decoder of impossible sizes, an unknown convention; see `otprune.cost`.
    """
    found = {}
    for model in dict.fromkeys(setting.model for setting in settings):
        shape, text = manifest.shapes.get(model), manifest.text_tokens.get(model)
        own = [
            one for one in settings if one.model == model and one.cells and _known(one, profiles)
        ]
        if not shape or not text:
            continue
        each = {
            one.label: {
                task: _of_prompt(
                    shape,
                    one,
                    text[task],
                    tokens[model, one.label, task],
                    (profiles or {}).get((model, one.label, task)),
                    convention,
                )
                for task in text
                if (model, one.label, task) in tokens
            }
            for one in own
        }
        base = each.get(UNPRUNED, {})
        for label, by_task in each.items():
            if by_task:
                shares = [100 * by_task[task] / base[task] for task in by_task if task in base]
                found[model, label] = Cost(
                    math.fsum(by_task.values()) / len(by_task),
                    math.fsum(shares) / len(shares) if shares else None,
                )
    return found


def _known(one: Setting, profiles: Mapping[Key, Profile] | None) -> bool:
    """Return whether the tokens of each layer are known: not of a schedule that cannot be read."""
    return not one.own_schedule or any(
        (one.model, one.label, task) in (profiles or {}) for task in one.tasks
    )


def _of_prompt(
    shape: Mapping[str, int | None],
    one: Setting,
    text: float,
    counts: tuple[float, float],
    profile: Profile | None,
    convention: Convention,
) -> float:
    if profile is None:
        return prefill(shape, one.layer, text, *counts, convention)
    return by_segments(shape, [(text + count, 1) for count in profile.tokens], convention)


def prefill(
    shape: Mapping[str, int | None],
    layer: int,
    text: float,
    kept: float,
    visual: float,
    convention: Convention,
) -> float:
    """Return the multiply-adds of the prefill of one prompt of mean length.

    Layers before ``layer`` process all visual tokens, the others those kept. Means need not be
    whole: between two whole counts the cost is taken as a line, which is off by less than
    a quarter of one token's attention.

    Args:
        shape: fields of `otprune.cost.DecoderShape`.
        layer: where is pruned; 0 for before the decoder.
        text: text tokens, the system's and the template's included.
        kept: visual tokens left.
        visual: visual tokens before pruning.
        convention: of `otprune.cost`.
    """
    layers = shape["layers"] or 0
    before = min(layer, layers)
    return by_segments(shape, [(text + visual, before), (text + kept, layers - before)], convention)


def by_segments(
    shape: Mapping[str, int | None],
    segments: Sequence[tuple[float, int]],
    convention: Convention,
) -> float:
    """Return the multiply-adds of a prefill of segments: so many tokens through so many layers."""
    # Here, and not above: the package loads torch, which only this column needs.
    from otprune.cost import DecoderShape, prefill_multiply_adds

    decoder = DecoderShape(**shape)  # type: ignore[arg-type]

    def whole(count: int, layers: int) -> int:
        # One layer's worth, times the layers that see as many.
        return prefill_multiply_adds(decoder, count, convention) * layers // decoder.layers

    total = 0.0
    for count, layers in segments:
        low, rest = math.floor(count), count - math.floor(count)
        total += (1 - rest) * whole(low, layers) + rest * whole(low + 1, layers)
    return total
