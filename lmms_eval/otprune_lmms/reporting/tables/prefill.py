"""The prefill of each row of a table: tokens of a layer and multiply-adds, from the records."""

from dataclasses import dataclass

import pandas as pd

from otprune_lmms.results.frames import Frame, PandasSeries
from otprune_lmms.results.records import CONVENTIONS, UNPRUNED, Convention


@dataclass(frozen=True, slots=True)
class PrefillCost:
    """The prefill of a row; means over the tasks whose prompts have images.

    Attributes:
        layer_tokens: visual tokens of an image that enter a layer of the language model, mean over
            its layers; None where the records do not say.
        multiply_adds: of the prefill of a mean prompt; None where the records do not say.
        share: pruned / unpruned multiply-adds of each task, in percent, as OTPrune's and DivPrune's
            tables print it; None without an unpruned row.
    """

    layer_tokens: float | None
    multiply_adds: float | None
    share: float | None


def prefill_costs(records: Frame, convention: Convention) -> dict[tuple[str, str], PrefillCost]:
    """Return the prefill of each row, by model and row; seeds of a row are averaged.

    Args:
        records: as `read_records` returns them.
        convention: of the multiply-adds.

    Raises:
        ValueError: an unknown convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}; got {convention!r}")
    # One line a metric: counts are the same in all lines of a setting and task.
    once = records.drop_duplicates(["model", "setting", "task"])
    once = once[once["kept_tokens"].notna()]
    means = once.groupby(["model", "row", "task"], sort=False)[
        ["layer_tokens", f"multiply_adds_{convention}"]
    ].mean()
    layer_tokens, multiply_adds = (means[name].astype(float).unstack("task") for name in means)
    found = {}
    for model, row in means.index.droplevel("task").unique():
        own, share = multiply_adds.loc[(model, row)], None
        if (model, UNPRUNED) in multiply_adds.index:
            share = _mean(100 * own / multiply_adds.loc[(model, UNPRUNED)])
        found[str(model), str(row)] = PrefillCost(
            _mean(layer_tokens.loc[(model, row)]), _mean(own), share
        )
    return found


def _mean(values: PandasSeries) -> float | None:
    """Return the mean over the tasks that have a number, None where there is none."""
    mean = values.mean()
    return None if pd.isna(mean) else float(mean)
