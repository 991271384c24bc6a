"""The published numbers as a frame, with their units and the benchmark that each belongs to."""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import pandas as pd

from otprune_lmms.results.frames import Column, Frame

PRINTED = (
    "method",
    "variant",
    "model",
    "budget_kind",
    "keep_tokens_or_ratio",
    "budget_note",
    "benchmark",
    "metric",
    "score",
    "source",
    "provenance",
    "remark",
)
"""Columns of ``scores.csv``; the README beside it says what they hold."""

COLUMNS = (*PRINTED, "value", "unit", "task")
"""Columns of `load`."""

_SHARE = "percent, 0 to 100"
_RELATIVE = "percent of the unpruned model's average"
_UNITS: dict[str, tuple[str, float]] = {
    "acc": (_SHARE, 1),
    "VQA_acc": (_SHARE, 1),
    "f1": (_SHARE, 1),
    "WUPS": (_SHARE, 1),
    "CIDEr": ("CIDEr x 100", 100),
    "CIDEr_x100": ("CIDEr x 100", 1),
    "perception": ("MME perception, 0 to 2000", 1),
    "cognition": ("MME cognition, 0 to 800", 1),
    "total": ("MME perception + cognition, 0 to 2800", 1),
    "score": ("the benchmark's own", 1),
    "mean": ("mean of the paper's benchmarks, 0 to 100", 1),
    "ratio_of_means": (_RELATIVE + ", ratio of means", 1),
    "mean_of_ratios": (_RELATIVE + ", mean of ratios", 1),
    "unknown_rule": (_RELATIVE + ", rule unknown", 1),
    "percent": ("percent of the unpruned model's TFLOPs", 1),
    "TFLOPs": ("TFLOPs by the source's own count", 1),
    "ms": ("milliseconds", 1),
    "s": ("seconds", 1),
    "GB": ("GB", 1),
    "count": ("tokens", 1),
    "rank_all": ("mean rank among all methods of the block", 1),
    "rank_oneshot": ("mean rank among the one-shot methods of the block", 1),
    "p_value": ("probability", 1),
    "win_rate_percent": (_SHARE, 1),
    "optimality_ratio_percent": (_SHARE, 1),
}
"""Unit of ``value``, and what ``score`` is multiplied with to give it."""

_SAME = {
    ("coco2017_cap_val", "CIDEr"): "coco2017_cap_val",
    ("coco2017_cap_val", "CIDEr_x100"): "coco2017_cap_val",
    ("flickr30k_test", "CIDEr"): "flickr30k_test",
    ("flickr30k_test", "CIDEr_x100"): "flickr30k_test",
    ("nocaps_val", "CIDEr"): "nocaps_val",
    ("nocaps_val", "CIDEr_x100"): "nocaps_val",
    ("gqa", "acc"): "gqa",
    ("mmbench_en_dev", "acc"): "mmbench_en_dev_static",
    ("mme", "perception"): "mme",
    ("mmmu_val", "acc"): "mmmu_val",
    ("ok_vqa_val2014", "VQA_acc"): "ok_vqa_val2014",
    ("pope", "f1"): "pope",
    ("scienceqa_img", "acc"): "scienceqa_img",
}
_SEED = {
    "seedbench": ("OTPrune", "DivPrune"),
    "seedbench_image": ("Cen-Prune", "TransPrune"),
}
"""Sources whose column of that name is accuracy on images; the others' holds all questions."""


def load(
    *,
    source: str | Iterable[str] | None = None,
    model: str | Iterable[str] | None = None,
    budget: str | float | Iterable[str | float] | None = None,
) -> Frame:
    """Return the published numbers, one a line.

    Args:
        source: a paper with its table, as in the column ``source``; or several.
        model: as in the column ``model``; or several.
        budget: tokens kept (128) or their ratio (0.098), or a ``budget_kind`` ("full", "flops", …);
            or several.

    Returns:
        The lines of ``scores.csv`` that fit all of it, in their order, columns `COLUMNS`:
        ``score`` as printed; ``value`` the same in ``unit`` (CIDEr always x 100, MME's unit says
        which of its scores); ``task`` the id of the benchmark in our tables whose headline it is,
        "" for any other number. ``keep_tokens_or_ratio`` is NaN where a paper gives none.

    Raises:
        ValueError: no line has a given source, model or budget; the message lists the known ones.
    """
    found = _all()
    keep = pd.Series(data=True, index=found.index)
    keep &= _among(found["source"], "source", source)
    keep &= _among(found["model"], "model", model)
    if budget is not None:
        several = [budget] if isinstance(budget, str | int | float) else list(budget)
        kinds = [one for one in several if isinstance(one, str)]
        kept = [float(one) for one in several if not isinstance(one, str)]
        keep &= _among(found["budget_kind"], "budget", kinds) | _among(
            found["keep_tokens_or_ratio"], "budget", kept
        )
    return found[keep].reset_index(drop=True)


def wide(numbers: Frame) -> Frame:
    """Return numbers as a table: one line a setting, one column a benchmark of our tables.

    Args:
        numbers: lines of `load`; those without a ``task`` are left out.

    Returns:
        ``value`` by (source, model, method, variant, budget_kind, keep_tokens_or_ratio,
        budget_note) and ``task``, both in order of appearance; NaN where a paper prints none.
    """
    index = [
        "source",
        "model",
        "method",
        "variant",
        "budget_kind",
        "keep_tokens_or_ratio",
        "budget_note",
    ]
    ours = numbers[numbers["task"] != ""]
    return ours.set_index([*index, "task"])["value"].unstack("task", sort=False)


def _among(column: Column, name: str, wanted: str | Iterable[object] | None) -> Column:
    """Return where a column has one of the wanted values; everywhere if none is named."""
    if wanted is None:
        return pd.Series(data=True, index=column.index)
    values = [wanted] if isinstance(wanted, str) else list(wanted)
    known = list(column.dropna().unique())
    for value in values:
        if value not in known:
            listed = ", ".join(str(one) for one in known)
            raise ValueError(f"{name} must be one of {listed}; got {value!r}")
    return column.isin(values)


@cache
def _all() -> Frame:
    numbers = _printed()
    numbers["score"] = numbers["score"].astype(float)
    numbers["keep_tokens_or_ratio"] = pd.to_numeric(numbers["keep_tokens_or_ratio"])
    scale = numbers["metric"].map({name: factor for name, (_, factor) in _UNITS.items()})
    numbers["value"] = (numbers["score"] * scale).round(6)
    numbers["unit"] = numbers["metric"].map({name: text for name, (text, _) in _UNITS.items()})
    numbers["task"] = [
        _task(*line)
        for line in zip(numbers["benchmark"], numbers["metric"], numbers["source"], strict=True)
    ]
    return numbers[list(COLUMNS)]


def _printed() -> Frame:
    with (files("otprune_lmms.reporting.published") / "scores.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False, dtype={"score": str})


def _task(benchmark: str, metric: str, source: str) -> str:
    if benchmark in _SEED:
        return "seedbench" if source.startswith(_SEED[benchmark]) else ""
    return _SAME.get((benchmark, metric), "")
