"""``cost.csv``: the cost of a sample, one line for each model, batch size and setting."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from otprune_lmms.results.checked import Column, Kind, check_frame, read_csv
from otprune_lmms.results.columns import SETTING, SETTING_COLUMNS, TEXTS
from otprune_lmms.results.frames import Frame

COST_TABLE = "cost.csv"

Verdict = Literal["faster", "slower", "no difference"]

PARTS = ("preprocess", "vision", "select", "prefill", "decode")
"""The parts of an answer's time, in their order."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds of one sample.

    Median and quartiles over the repeats are taken for each batch, then averaged over all samples.
    So the spread is between repeats, not between samples.

    Attributes:
        middle: mean of the medians; None where nothing was timed.
        low: mean of the lower quartiles.
        high: mean of the upper quartiles.
    """

    middle: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Speedup:
    """How many times as fast as the unpruned model of the same run, with a 95 % interval.

    Attributes:
        times: the unpruned model's time / the setting's; None where nothing was timed.
        low: lower end of the interval.
        high: upper end.
    """

    times: float | None
    low: float | None
    high: float | None

    @property
    def verdict(self) -> Verdict | None:
        """Faster or slower where the interval says so; None where nothing was timed."""
        if self.times is None or self.low is None or self.high is None:
            return None
        return "faster" if self.low > 1 else "slower" if self.high < 1 else "no difference"


@dataclass(frozen=True, slots=True)
class MeasuredCost:
    """The cost of a sample under a setting; counts and bytes are means over the samples.

    Attributes:
        model: name of the model.
        config: the setting's columns, `results.columns.SETTING`.
        batch: samples in one call; a sample's time is the call's time divided by this.
        visual_tokens: before any pruning.
        kept_tokens: after the last pruning.
        text_tokens: of the prompt, the chat template's included.
        preprocess: reading and decoding the images, pixel values, token ids; on the host.
        vision: vision encoder and projector, with the signals that the method needs.
        select: selection of the tokens; 0 where none are dropped.
        prefill: from token ids and visual tokens to the first logits, without the selection.
        decode: everything after the first logits.
        decode_per_token: a decoding step, divided by the rows that share it.
        total: sum of the parts in each repeat.
        prefill_ratio: prefill / prefill of the unpruned model in the same run.
        total_ratio: total / total of the unpruned model in the same run.
        prefill_speedup: of prefill and selection together.
        answer_speedup: of the total.
        select_share: select / (prefill of the unpruned model - prefill): the share of the saved
            time that the selection costs; None where nothing is saved or selected.
        kv_bytes: bytes of keys and values after the prefill.
        peak_bytes: peak memory while a whole batch was encoded and answered, weights included; the
            largest of all batches.
        added_bytes: bytes of the peak above the memory before; None where unknown.
        multiply_adds: of the prefill, by ``convention``.
        convention: formula of the multiply-adds, see `otprune.cost`.
        multiply_adds_ratio: multiply_adds / those of the unpruned model.
        counted_flops: of the prefill as torch counts them; a multiply-add is two.
        counted_ratio: counted_flops / those of the unpruned model.
        vision_flops: of vision encoder and projector.
        new_tokens: generated tokens of an answer.
        samples: number of answered requests.
        repeats: timed rounds over all of them.
        dtype: of the weights.
        attention: implementation of attention.
    """

    model: str
    config: Mapping[str, Any]
    batch: int
    visual_tokens: float
    kept_tokens: float
    text_tokens: float
    preprocess: Spread
    vision: Spread
    select: Spread
    prefill: Spread
    decode: Spread
    decode_per_token: Spread
    total: Spread
    prefill_ratio: float | None
    total_ratio: float | None
    prefill_speedup: Speedup
    answer_speedup: Speedup
    select_share: float | None
    kv_bytes: float
    peak_bytes: int
    added_bytes: int | None
    multiply_adds: float
    convention: str
    multiply_adds_ratio: float
    counted_flops: float
    counted_ratio: float
    vision_flops: float
    new_tokens: float
    samples: int
    repeats: int
    dtype: str
    attention: str

    @property
    def setting(self) -> str:
        """Label of the setting."""
        return self.config["setting"]

    def plain(self) -> dict[str, Any]:
        """Return the line by `COLUMNS`."""
        found: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (Spread, Speedup)):
                found |= dict(
                    zip(_columns_of(field.name), dataclasses.astuple(value), strict=True)
                )
            elif field.name == "config":
                found |= {name: value[name] for name in SETTING}
            else:
                found[field.name] = value
        return found


_TIMES = (*PARTS, "decode_per_token", "total")
_SPEEDUPS = ("prefill_speedup", "answer_speedup")


def _columns_of(field: str) -> tuple[str, ...]:
    if field == "config":
        return SETTING
    if field not in (*_TIMES, *_SPEEDUPS):
        return (field,)
    middle = {"decode_per_token": "decode_ms_per_token"}.get(field, f"{field}_ms")
    middle = field if field in _SPEEDUPS else middle
    return middle, f"{middle}_low", f"{middle}_high"


COLUMNS = tuple(
    column for field in dataclasses.fields(MeasuredCost) for column in _columns_of(field.name)
)
"""Columns of ``cost.csv``: fields of `MeasuredCost`; a time has ``x_ms`` and its quartiles, a
speedup ``x`` and the ends of its interval."""

_TEXT = ("model", *TEXTS, "keep_newlines", "convention", "dtype", "attention")
_WHOLE = ("k", "layer", "seed", "batch", "peak_bytes", "added_bytes", "samples", "repeats")

_COLUMNS = {
    **{name: Column(Kind.NUMBER, empty=True) for name in COLUMNS},
    **{name: Column(Kind.WHOLE, empty=True) for name in _WHOLE},
    **{name: Column(Kind.TEXT) for name in ("model", "convention", "dtype", "attention")},
    **SETTING_COLUMNS,
}
"""What each column must hold."""


def read_costs(folder: Path) -> Frame:
    """Return the lines of a folder's ``cost.csv``, by `COLUMNS`.

    Raises:
        ValueError: there is no such file, or it has another format.
    """
    path = folder / COST_TABLE
    if not path.is_file():
        raise ValueError(f"no costs at {path}; otprune bench measures them")
    # Read as text first: some versions of pandas misread the last digit of a number.
    found = read_csv(path, dict.fromkeys(COLUMNS, Column(Kind.TEXT, empty=True, needed=False)))
    if tuple(found.columns) != COLUMNS:
        raise ValueError(f"{path} must have the columns {', '.join(COLUMNS)}")
    numbers = [name for name in COLUMNS if name not in _TEXT]
    try:
        found = found.astype(dict.fromkeys(numbers, float))
    except ValueError as error:
        raise ValueError(f"{path} has a number that is none: {error}") from error
    found = found.assign(keep_newlines=found["keep_newlines"] == "True")
    check_frame(path, found, _COLUMNS)
    return found.astype(dict.fromkeys(_WHOLE, "Int64"))


def cost_frame(lines: Sequence[Mapping[str, Any]]) -> Frame:
    """Return lines of `MeasuredCost.plain` as a frame with all columns, in their order."""
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype(dict.fromkeys(_WHOLE, "Int64"))
