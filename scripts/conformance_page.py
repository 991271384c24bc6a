"""One page of what papers print of each method beside what was run here, and of printed costs.

    .venv/bin/python scripts/conformance_page.py                       # docs/conformance.md
    .venv/bin/python scripts/conformance_page.py results/my-sweep      # with the scores of a sweep

Printed numbers are those of ``published/scores.csv``. A sweep counts if its suite is "hub": the
embedded suite has other documents and another model. Its model must have the name of a printed one,
in any case ("llava-1.5-7b"); a row matches a printed one of the same method and budget without
changed settings.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import typer
from otprune_lmms.benchmarks import OTPRUNE_11, benchmark
from otprune_lmms.experiments.cost.printed import computed
from otprune_lmms.reporting import published
from otprune_lmms.reporting.escape import markdown
from otprune_lmms.reporting.tables import read_intervals
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.records import RECORDS, read_records

from bench_common import ROOT
from otprune.registry import LAYER_PRUNERS, MERGERS, SELECTORS

PAGE = ROOT / "docs" / "conformance.md"
PRINTED_NAMES = {
    "pyramiddrop": ("PDrop",),
    "prumerge": ("PruMerge", "PruMerge+"),
}
"""What papers call a method; of other methods the name in any case."""

COSTS = ("tflops", "tflops_ratio", "final_tokens")
_DEVIATIONS = re.compile(
    r"Where paper and released code differ|Differs from the released code|Released code and paper"
    r"|What the paper leaves open|Limits of the released code|The released (method|lists)"
    r"|The authors' code was not run|This is not the paper's model"
)
_NAMES = {"llava-1.6-7b": "llava-next-7b", "llava-1.6-13b": "llava-next-13b"}


class Run(NamedTuple):
    """A score that was measured here, in the unit of our tables."""

    value: float
    low: float | None
    high: float | None


Runs = dict[tuple[str, str, str, str], Run]
"""Scores by (model, method, budget, task)."""


def budget_text(kind: str, amount: Any) -> str:
    """Return a printed budget: "128 tokens", "ratio 0.098", "schedule", "full"."""
    if pd.isna(amount) or kind == "full":
        return kind
    return f"ratio {amount:g}" if amount < 1 else f"{amount:.0f} tokens"


def model_key(name: str) -> str:
    """Return a model's name in one spelling."""
    plain = name.lower()
    return _NAMES.get(plain, plain)


def runs_of(folders: Sequence[Path]) -> Runs:
    """Return the scores of sweeps over the benchmarks themselves.

    Raises:
        ValueError: a folder without records, or one of the embedded suite.
    """
    found: Runs = {}
    for folder in folders:
        records = read_records(folder / RECORDS)
        if set(records["suite"]) != {"hub"}:
            raise ValueError(f"{folder} must be of the suite hub, got {records['suite'].iloc[0]!r}")
        known = read_intervals(folder).scores
        for (model, row, task), some in records.groupby(["model", "row", "task"], sort=False):
            head = benchmark(str(task), list(some["metric"]))
            own = some[some["metric"] == head.metric]["value"].dropna()
            first = some.iloc[0]
            if not len(own) or first["changed_settings"] != "{}":
                continue
            between = known.get((str(model), str(row), str(task)))
            low, high = (None, None) if between is None else (between.low, between.high)
            amount = first["k"] if pd.isna(first["keep_ratio"]) else first["keep_ratio"]
            unpruned = pd.isna(first["method"])
            method = "original" if unpruned else str(first["method"])
            budget = "full" if unpruned else budget_text("own schedule", amount)
            key = (model_key(str(model)), method, budget, str(task))
            found[key] = Run(float(own.mean()) * head.scale, low, high)
    return found


def verdict(printed: float, run: Run, digits: int) -> str:
    """Return our score with its interval, and whether the printed one lies in it."""
    shown = f"{run.value:.{digits}f}"
    if run.low is None or run.high is None:
        return f"{shown} (no interval)"
    word = "inside" if run.low <= printed <= run.high else "**outside**"
    return f"{shown} [{run.low:.{digits}f}, {run.high:.{digits}f}] {word}"


def deviations(method: type) -> list[str]:
    """Return what a method's docstring says of differences to the paper or its released code."""
    found, listing = list[str](), False
    for paragraph in (inspect.getdoc(method) or "").split("\n\n"):
        bullets = paragraph.startswith("- ")
        if _DEVIATIONS.search(paragraph) or (bullets and listing):
            found += re.split(r"\n(?=- )", paragraph)
            listing = bullets or paragraph.rstrip().endswith(":")
        else:
            listing = False
    return [" ".join(one.split()) for one in found]


def cost_lines(numbers: Frame) -> Iterator[str]:
    """Yield the table of printed costs."""
    yield "| source | method | model | budget | what | printed | computed | from | |"
    yield "|---|---|---|---|---|--:|--:|---|---|"
    for _, line in numbers[numbers["benchmark"].isin(COSTS)].iterrows():
        found = computed(line)
        printed = str(line["score_text"])
        cells = [
            line["source"],
            " ".join(filter(None, (line["method"], line["variant"]))),
            line["model"],
            budget_text(line["budget_kind"], line["keep_tokens_or_ratio"]),
            {"tflops": "TFLOPs", "tflops_ratio": "% of unpruned"}.get(
                line["benchmark"], "tokens left"
            ),
            printed,
        ]
        if found is None:
            cells += ["–", "not printed: text tokens or schedule", "not computed"]
        else:
            digits = len(printed.partition(".")[2])
            equal = found.equals(printed)
            cells += [
                f"{found.value:.{digits + (not equal)}f}",
                found.how,
                "equal" if equal else "differs",
            ]
        yield f"| {' | '.join(markdown(str(one)) for one in cells)} |"


def score_lines(name: str, own: Frame, runs: Runs) -> Iterator[str]:
    """Yield a method's table: printed scores of each setting, ours below where there are some."""
    heads = {task: benchmark(task) for task in OTPRUNE_11}
    yield f"| model | budget | source | {' | '.join(head.column for head in heads.values())} |"
    yield f"|---|---|---|{'--:|' * len(heads)}"
    keys = ["source", "model", "method", "variant", "budget_kind", "keep_tokens_or_ratio"]
    keys += ["budget_note", "provenance"]
    for setting, some in own.groupby(keys, sort=False, dropna=False):
        source, model, method, variant, kind, amount, _, provenance = setting
        scores = dict(zip(some["task"], some["value"], strict=True))
        budget = budget_text(str(kind), amount)
        what = ", ".join(filter(None, (budget, str(variant), "" if "+" not in method else method)))
        cells = [
            f"{scores[task]:.{head.digits}f}" if task in scores else ""
            for task, head in heads.items()
        ]
        where = f"{source}, {provenance}"
        yield f"| {' | '.join(markdown(str(one)) for one in (model, what, where, *cells))} |"
        ours = [
            verdict(scores[task], runs[key], head.digits)
            if not variant
            and task in scores
            and (key := (model_key(model), name, budget, task)) in runs
            else ""
            for task, head in heads.items()
        ]
        if any(ours):
            yield f"|  |  | run here | {' | '.join(ours)} |"


def printed_numbers() -> Frame:
    """Return the published numbers, with ``score_text`` as they are printed, all digits."""
    numbers = published.load()
    place = files("otprune_lmms.reporting.published") / "scores.csv"
    with place.open(encoding="utf-8") as file:
        return numbers.assign(score_text=pd.read_csv(file, dtype=str)["score"])


def page(numbers: Frame, runs: Runs) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        numbers: of `printed_numbers`.
        runs: scores that were measured here.
    """
    costs = [line for _, line in numbers[numbers["benchmark"].isin(COSTS)].iterrows()]
    again = [(line, found) for line in costs if (found := computed(line)) is not None]
    equal = sum(found.equals(str(line["score_text"])) for line, found in again)
    scores = numbers[numbers["task"].isin(OTPRUNE_11)]
    methods = {**SELECTORS, **MERGERS, **LAYER_PRUNERS}
    own = {
        name: scores[scores["method"].str.split("+").str[0].isin(_printed_names(name, scores))]
        for name in ("original", *methods)
    }
    yield "# Conformance: what papers print, and what was run here"
    yield ""
    yield (
        f"Made by `scripts/conformance_page.py`. Printed: {sum(map(len, own.values()))} scores of "
        f"our methods on the eleven benchmarks, and {len(costs)} costs. Run here: {len(runs)} "
        "scores. Costs computed again from the settings that are printed: "
        f"{len(again)}, of which {equal} are equal to the last printed digit."
    )
    yield ""
    if not runs:
        yield (
            "No printed score has been run here: that needs checkpoints and benchmarks of the hub. "
            "That methods keep the tokens that the released code keeps is tested on recorded "
            "values (`tests/`). `scripts/conformance_page.py FOLDER` writes this page "
            "with the scores of a sweep: each stands below the printed one, with its 95 % interval "
            'over documents, and "inside" or "outside".'
        )
        yield ""
    yield (
        "After a source stands who ran it: own, the method's authors; rerun, the paper that prints "
        "it; copied, an earlier paper; unstated. Copies of one number are one measurement."
    )
    yield from ("", "## Costs", "")
    yield from cost_lines(numbers)
    for name, some in own.items():
        if name != "original" and not (len(some) or deviations(methods[name])):
            continue
        yield from ("", f"## {'Unpruned' if name == 'original' else f'`{name}`'}", "")
        said = [] if name == "original" else deviations(methods[name])
        yield from (one if one.startswith("- ") else f"- {one}" for one in said)
        if said:
            yield ""
        if len(some):
            yield from score_lines(name, some, runs)
        else:
            yield "No printed score on the eleven benchmarks is known."
    yield ""


def _printed_names(name: str, numbers: Frame) -> set[str]:
    """Return what papers call a method."""
    wanted = {name, *(one.lower() for one in PRINTED_NAMES.get(name, ()))}
    firsts = numbers["method"].str.split("+").str[0].unique()
    return {one for one in firsts if one.lower() in wanted}


def main(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="folders of sweeps over the benchmarks themselves")
    ] = None,
    out: Annotated[Path, typer.Option(help="page to write")] = PAGE,
) -> None:
    """Write the page."""
    try:
        runs = runs_of(folders or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    out.write_text("\n".join(page(printed_numbers(), runs)))


if __name__ == "__main__":
    typer.run(main)
