"""The statistics page of an experiment."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from otprune_lmms.benchmarks import Benchmark, benchmark
from otprune_lmms.reporting.escape import markdown, markdown_code
from otprune_lmms.reporting.statistics import sections
from otprune_lmms.reporting.statistics.averages import MEAN_OF_RATIOS
from otprune_lmms.reporting.statistics.compare import ALL, Findings
from otprune_lmms.reporting.statistics.draws import ModelDraws
from otprune_lmms.reporting.statistics.paired import BOOTSTRAP, EXACT, MCNEMAR, SAMPLED
from otprune_lmms.reporting.statistics.power import ALPHA
from otprune_lmms.reporting.statistics.sections import listed
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.names import Names
from otprune_lmms.results.records import UNPRUNED

_FEW = 30
"""Clusters below which a percentile interval is known to be too narrow."""


def page(
    found: Findings, title: str, origin: Mapping[str, str], seeds: Mapping[str, list[str]]
) -> str:
    """Return the page as Markdown.

    Args:
        found: what to show.
        title: of the experiment.
        origin: what made the numbers; stands at the head.
        seeds: by model, lines about rows with several seeds.
    """
    lines = [f"# Statistics: {markdown(title)}", ""]
    lines += [f"{markdown(name)}: {markdown_code(value)}  " for name, value in origin.items()]
    lines += ["", *_summary(found), ""]
    several = len(found.models) > 1
    for model in found.models.values():
        lines += [f"## {markdown(model.model)}", ""] if several else []
        lines += _model(found, model, "###" if several else "##", seeds.get(model.model, []))
    lines += ["## How the numbers were made", "", *_method(found), ""]
    return "\n".join(lines)


def _model(found: Findings, model: ModelDraws, level: str, seeds: list[str]) -> list[str]:
    methods = sections.between_methods(found, model.model)
    unpruned = sections.with_unpruned(found, model.model)
    parts = [
        ("Relative averages", [*sections.relative(found, model), *seeds]),
        ("Scores", sections.scores(found, model)),
    ]
    if len(methods):
        parts += [
            ("Differences between rows", ["", _KEY, *sections.differences(methods, found.names)]),
            ("What this sample can decide", ["", _DECIDE, *sections.decidable(methods)]),
        ]
    if len(unpruned):
        parts.append(("Against the unpruned model", sections.differences(unpruned, found.names)))
    if len(methods):
        parts.append(
            (
                "Over tasks (Wilcoxon)",
                ["", _TASKS, *sections.over_tasks(model, methods, found.names)],
            )
        )
    cautions = [f"- {markdown(one)}" for one in _cautions(found, model)]
    if cautions:
        parts.append(("Cautions", ["", *cautions]))
    return [line for name, lines in parts for line in [f"{level} {name}", *lines, ""]]


_KEY = (
    "Better on: tasks on which the difference survives Holm's correction. Not decided: neither, "
    "which does not say that both are equal. Tasks are families of their own, so a single win "
    "among many tasks may be chance; the relative average is one comparison for all."
)
_DECIDE = (
    "Medians over the pairs of rows above. Smallest difference found: that a test of one pair at "
    f"level {ALPHA:g} would find with probability 0.8, from the documents on which the two differ "
    "(McNemar) or from the standard error of their difference; after Holm it is larger. "
    "Documents for 1 point: how many it would take to tell one point apart."
)
_TASKS = (
    "Signed ranks of relative differences, (a - b) / b, as in OTPrune's paper: normal "
    "approximation with continuity correction. Tasks are the sample here; it says nothing of "
    "single tasks. The one-sided p fixes beforehand that a is the better one."
)


def _summary(found: Findings) -> Iterator[str]:
    methods = found.pairs[found.pairs["b"] != UNPRUNED]
    single = methods[~methods["task"].isin(list(ALL.values()))].dropna(subset=["p_holm"])
    whole = methods[methods["task"] == ALL[MEAN_OF_RATIOS]].dropna(subset=["p_holm"])
    if single.empty:
        yield "One setting at each budget: no methods to compare."
        return
    sure, all_sure = (int((some["p_holm"] < ALPHA).sum()) for some in (single, whole))
    yield (
        f"{sure} of {len(single)} differences between rows on a single task survive Holm's "
        f"correction, {all_sure} of {len(whole)} differences of the relative average. This sample "
        f"does not decide the other {len(single) - sure} and {len(whole) - all_sure}: what it can "
        "decide stands below."
    )


def _cautions(found: Findings, model: ModelDraws) -> Iterator[str]:
    for task, data in model.tasks.items():
        record = benchmark(task)
        name = record.column
        for row, problem in data.problems.items():
            yield f"{found.names.whole(row)}, {name}: no interval or test ({problem})"
        strata = [np.bincount(group.stratum).min() for group in data.groups]
        if strata and min(strata) < _FEW:
            yield (
                f"{name}: as few as {min(strata)} images"
                f"{_in_stratum(record)}; intervals are too narrow by about "
                f"{100 * (1 - np.sqrt(1 - 1 / min(strata))):.0f} % of their width or more"
            )
        if len(data.groups) > 1:
            yield f"{name}: rows differ in their documents; pairs are compared on those of both"
    yield from _flat(found, model)
    yield from _too_few_draws(found, model)


def _flat(found: Findings, model: ModelDraws) -> Iterator[str]:
    mine = found.intervals[found.intervals["model"] == model.model]
    flat = mine[(mine["low"] == mine["high"]) & mine["low"].notna()]
    for task, some in flat.groupby("task", sort=False):
        clusters = int(some["clusters"].min())
        rows = listed(map(found.names.whole, some["row"]))
        yield (
            f"{benchmark(str(task)).column}: all documents alike for {rows}, so the "
            f"interval has no width. The truth may still differ in up to {300 / clusters:.1f} % of "
            "the documents (rule of three, 95 %)"
        )


def _too_few_draws(found: Findings, model: ModelDraws) -> Iterator[str]:
    mine = found.pairs[(found.pairs["model"] == model.model) & (found.pairs["test"] == BOOTSTRAP)]
    largest = mine.groupby(["budget", "task"]).size().max() if len(mine) else 0
    if largest * 2 / (found.draws + 1) >= ALPHA:
        yield (
            f"{found.draws} draws cannot give a p-value that survives among {largest} pairs: "
            "relative averages need more draws"
        )


def _in_stratum(record: Benchmark) -> str:
    return f" in a {record.aggregation.strata}" if record.aggregation.strata else ""


def _method(found: Findings) -> Iterator[str]:
    used = set(found.pairs["test"])
    tasks = dict.fromkeys(task for model in found.models.values() for task in model.tasks)
    records = [benchmark(task) for task in tasks]
    strata = [
        markdown(f"{one.title}: within each {one.aggregation.strata}")
        for one in records
        if one.aggregation.strata
    ]
    counted = [markdown(f"{one.title}: {one.counted}") for one in records if one.counted]
    called = {one.aggregation.called for one in records if one.aggregation.called}
    no_means = sorted(map(markdown, called))
    exchanged = ", ".join(["scores that are not 0 or 1", *no_means, "seeds"])
    yield (
        f"- Intervals: 95 %, percentile, {found.draws} bootstrap draws of images with all their "
        f"documents{_in_brackets(strata)}, the same draws for all rows of a task. They are "
        "about further documents of the same kind, not about further tasks or trainings. Documents "
        f"are those that count for the task's headline{_in_brackets(counted)}. "
        "Relative averages: tasks drawn independently, the set of tasks fixed. Not BCa: its bias "
        "correction is infinite for a score at its bound and depends on ties for few documents."
    )
    tests = {
        MCNEMAR: (
            f"- {MCNEMAR}: McNemar's mid-p, where a document is right or wrong, has an image of "
            "its own, and no seeds are averaged."
        ),
        SAMPLED: (
            f"- {SAMPLED}: the two rows exchange the answers of whole images, "
            f"{found.permutations} random exchanges: for {exchanged}, and images with several "
            "questions. Both headlines are computed anew."
        ),
        EXACT: f"- {EXACT}: the same with all exchanges, where the two differ in few images.",
        BOOTSTRAP: (
            f"- {BOOTSTRAP}: relative averages; twice the share of draws on the other side of 0, "
            f"so never below {2 / (found.draws + 1):.4f}."
        ),
    }
    yield from (line for test, line in tests.items() if test in used)
    yield (
        "- Holm's correction: over the pairs of rows of one model, budget and task; comparisons "
        "with the unpruned model apart."
    )
    yield (
        "- All p-values, both averaging rules and every interval: averages.csv, intervals.csv, "
        "pairs.csv (difference = a - b)."
    )


def _in_brackets(facts: Sequence[str]) -> str:
    return f" ({', '.join(facts)})" if facts else ""


def seed_lines(scores: Frame, seeds: Mapping[str, list[float]], names: Names) -> list[str]:
    """Return a line for each row with several seeds: spread of its relative average.

    Args:
        scores: rows by tasks of one model.
        seeds: by row, the mean of ratios of each of its seeds.
        names: of the rows.
    """
    lines = []
    for row in scores.index:
        values = seeds.get(str(row), [])
        if len(values) > 1:
            spread = float(np.std(values, ddof=1))
            lines.append(
                f"{markdown(names.whole(row))}: mean of {len(values)} seeds, whose means of ratios "
                "have a "
                f"standard deviation of {spread:.2f} ({min(values):.1f} to {max(values):.1f}). "
                "The interval is about documents, with these seeds."
            )
    return ["", *lines] if lines else []
