"""Sections of the statistics page, one function each, and their numbers as text."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.escape import markdown
from otprune_lmms.reporting.statistics.averages import (
    MEAN_OF_RATIOS,
    RATIO_OF_MEANS,
    ratio_of_means_name,
)
from otprune_lmms.reporting.statistics.compare import ALL, Findings
from otprune_lmms.reporting.statistics.draws import ModelDraws
from otprune_lmms.reporting.statistics.paired import MCNEMAR, holm
from otprune_lmms.reporting.statistics.power import ALPHA, documents_needed
from otprune_lmms.reporting.statistics.wilcoxon import FEWEST_TASKS, wilcoxon_over_tasks
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.names import Names
from otprune_lmms.results.records import UNPRUNED

Lines = Iterator[str]

EMPTY = "–"
"""Stands where there is no number."""


def relative(found: Findings, model: ModelDraws) -> Lines:
    """Yield both relative averages of every row."""
    mine = found.averages[found.averages["model"] == model.model]
    if mine.empty:
        yield from ["", "No unpruned row, so no relative averages."]
        return
    shown = {
        (line.row, line.rule): between(line.value, line.low, line.high, 1)
        for line in mine.itertuples()
    }
    rows = [
        [markdown(found.names.whole(row)), shown[row, MEAN_OF_RATIOS], shown[row, RATIO_OF_MEANS]]
        for row in dict.fromkeys(mine["row"])
    ]
    tasks = [str(task) for task in model.scores.columns]
    heads = ["percent of unpruned", "mean of ratios", ratio_of_means_name(tasks)]
    yield from table(heads, rows)
    sets = list(dict.fromkeys(mine["tasks"]))
    if len(sets) > 1:
        yield from ["", "Rows differ in the tasks that enter: column `tasks` of averages.csv."]


def scores(found: Findings, model: ModelDraws) -> Lines:
    """Yield every score with its interval."""
    mine = found.intervals[found.intervals["model"] == model.model]
    tasks = [str(task) for task in model.scores.columns]
    shown = {
        (line.row, line.task): between(
            line.value, line.low, line.high, benchmark(str(line.task)).digits
        )
        for line in mine.itertuples()
    }
    rows = [
        [markdown(found.names.whole(row)), *(shown.get((row, task), EMPTY) for task in tasks)]
        for row in model.scores.index
    ]
    yield from table(["setting", *(_heading(task) for task in tasks)], rows)


def differences(pairs: Frame, names: Names) -> Lines:
    """Yield comparisons of one model, a table a budget.

    Args:
        pairs: of one model, either between methods or with the unpruned one.
        names: of the rows.
    """
    for budget, some in pairs.groupby("budget", sort=False):
        yield from ["", f"Budget {markdown(budget)}:"]
        rows = [
            _difference(names.whole(a), names.whole(b), lines)
            for (a, b), lines in some.groupby(["a", "b"], sort=False)
        ]
        heads = ["a", "b", "mean of ratios, a - b", "p (Holm)", "a better on", "b better on"]
        yield from table([*heads, "not decided"], rows)


def _difference(a: str, b: str, lines: Frame) -> list[str]:
    whole = lines[lines["task"] == ALL[MEAN_OF_RATIOS]]
    single = lines[~lines["task"].isin(list(ALL.values()))]
    sure = single[single["p_holm"] < ALPHA]
    names = [
        listed(_heading(task) for task in side["task"])
        for side in (sure[sure["difference"] > 0], sure[sure["difference"] < 0])
    ]
    overall = [EMPTY, EMPTY]
    if len(whole):
        one = whole.iloc[0]
        overall = [between(one["difference"], one["low"], one["high"], 1, signed=True)]
        overall.append(probability(one["p_holm"]))
    undecided = len(single) - int((sure["difference"] != 0).sum())
    return [markdown(a), markdown(b), *overall, *names, f"{undecided} of {len(single)} tasks"]


def decidable(pairs: Frame) -> Lines:
    """Yield what each task's sample can decide.

    Args:
        pairs: of one model, between methods.
    """
    rows = []
    tasks = [task for task in dict.fromkeys(pairs["task"]) if task != ALL[RATIO_OF_MEANS]]
    for task in tasks:
        rows.append(_decidable(task, pairs[pairs["task"] == task]))
    heads = ["documents", "they differ on", "smallest difference found", "documents for 1 point"]
    yield from table(["task", *heads, "largest seen", "pairs decided", "test"], rows)


def _decidable(task: str, lines: Frame) -> list[str]:
    whole = task == ALL[MEAN_OF_RATIOS]
    digits = 1 if whole else benchmark(task).digits
    share = (lines["discordant"] / lines["documents"]).astype(float).median()
    smallest = lines["detectable"].median()
    sure = int((lines["p_holm"] < ALPHA).sum())
    documents = lines["documents"].dropna()
    return [
        "relative average" if whole else _heading(task),
        EMPTY if documents.empty else str(int(documents.median())),
        EMPTY if np.isnan(share) else f"{100 * share:.0f} %",
        number(smallest, digits),
        EMPTY if whole else _for_one(task, lines, share, smallest),
        number(float(lines["difference"].abs().max()), digits),
        f"{sure} of {len(lines)}",
        listed(dict.fromkeys(lines["test"])),
    ]


def _for_one(task: str, lines: Frame, share: float, smallest: float) -> str:
    """Return how many documents a difference of one point takes, by the square-root law."""
    if benchmark(task).best != 100 or np.isnan(smallest):
        return EMPTY
    if set(lines["test"]) == {MCNEMAR} and share > 0.01:
        return f"{documents_needed(share, 0.01):.0f}"
    return f"{float(lines['documents'].median()) * smallest**2:.0f}"


def over_tasks(model: ModelDraws, pairs: Frame, names: Names) -> Lines:
    """Yield Wilcoxon's test over tasks for the pairs of methods of each budget."""
    for budget, some in pairs.groupby("budget", sort=False):
        found = [
            _over_tasks(model, str(a), str(b))
            for a, b in some[["a", "b"]].drop_duplicates().itertuples(index=False)
        ]
        if not found:
            continue
        adjusted = holm(np.array([p for *_, p in found]))
        rows = [
            [
                *(markdown(names.whole(row)) for row in (a, b)),
                f"{wins} of {tasks}",
                probability(p),
                probability(corrected),
                probability(one),
            ]
            for (a, b, wins, tasks, one, p), corrected in zip(found, adjusted, strict=True)
        ]
        yield from ["", f"Budget {markdown(budget)}:"]
        heads = ["a", "b", "a higher on", "p, two-sided", "p (Holm)", "p, a better (the paper's)"]
        yield from table(heads, rows)


def _over_tasks(model: ModelDraws, a: str, b: str) -> tuple[str, str, int, int, float, float]:
    own, other = model.scores.loc[a], model.scores.loc[b]
    both = own.notna() & other.notna()
    wins, tasks = int((own > other)[both].sum()), int(both.sum())
    if tasks < FEWEST_TASKS:
        return a, b, wins, tasks, float("nan"), float("nan")
    one = wilcoxon_over_tasks(own, other)
    return a, b, wins, tasks, one, wilcoxon_over_tasks(own, other, alternative="two-sided")


def between_methods(found: Findings, model: str) -> Frame:
    """Return a model's comparisons of pruned rows."""
    pairs = found.pairs
    return pairs[(pairs["model"] == model) & (pairs["b"] != UNPRUNED)]


def with_unpruned(found: Findings, model: str) -> Frame:
    """Return a model's comparisons with the unpruned row."""
    pairs = found.pairs
    return pairs[(pairs["model"] == model) & (pairs["b"] == UNPRUNED)]


def _heading(task: object) -> str:
    return markdown(benchmark(str(task)).column)


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Return a number, "–" for NaN."""
    if math.isnan(value):
        return EMPTY
    # Not "-0.0".
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if signed else ''}.{digits}f}"


def between(value: float, low: float, high: float, digits: int, *, signed: bool = False) -> str:
    """Return a number with its interval, without if there is none."""
    shown = number(value, digits, signed=signed)
    if math.isnan(low) or math.isnan(high):
        return shown
    ends = (number(end, digits, signed=signed) for end in (low, high))
    return f"{shown} [{', '.join(ends)}]"


def probability(p: float) -> str:
    """Return a p-value."""
    if math.isnan(p):
        return EMPTY
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table, all but its first column to the right."""
    lines = ["", f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def listed(names: Iterable[str]) -> str:
    """Return names with commas, "–" for none."""
    return ", ".join(names) or EMPTY
