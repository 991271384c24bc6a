"""Which rows keep as many tokens."""

from collections.abc import Iterator

import pandas as pd

from otprune_lmms.reporting.figures.data import Frame


def budget_names(scores: Frame) -> dict[str, list[str]]:
    """Return the rows of each budget, smallest first, under what figures call the budget.

    A budget is a keep ratio or a number of tokens, as the experiment has it; schedules without a
    budget come last, together.

    Args:
        scores: of pruned rows, with keep_ratio, k, tokens and visual.
    """
    found: dict[str, list[str]] = {}
    for name, own in _budgets(scores):
        found[name] = list(dict.fromkeys(own["row"]))
    return found


def _budgets(scores: Frame) -> Iterator[tuple[str, Frame]]:
    groups = [own for _, own in scores.groupby(["keep_ratio", "k"], dropna=False, sort=False)]
    for own in sorted(groups, key=lambda own: (_free(own), own["tokens"].mean())):
        if _free(own):
            yield "own schedules", own
            continue
        one = own.iloc[0]
        tokens = own["tokens"].round().unique()
        exact = f"{tokens[0]:.0f}" if len(tokens) == 1 else f"about {own['tokens'].mean():.0f}"
        share = f" ({100 * one['keep_ratio']:.3g} %)" if pd.notna(one["keep_ratio"]) else ""
        yield f"{exact} tokens{share}", own


def _free(own: Frame) -> bool:
    """Return whether rows have no budget."""
    return bool(own["keep_ratio"].isna().all() and own["k"].isna().all())
