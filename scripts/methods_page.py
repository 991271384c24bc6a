"""One page that compares all methods at equal budgets, from the results of a sweep.

    .venv/bin/python scripts/methods_page.py results/mini-methods results/mini/methods.md

Scores, intervals and paired differences are those of the folder's table.csv and pairs.csv. Only
Holm's correction is made here, over the comparisons that the page shows at each budget.
"""

import json
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from otprune_lmms.reporting.escape import markdown, markdown_code
from otprune_lmms.reporting.statistics.paired import holm
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import MANIFEST
from otprune_lmms.results.names import Names, method_name

from otprune.registry import LAYER_PRUNERS, MERGERS

SCORE = "mean of ratios"
LEVEL = 0.05

app = typer.Typer(add_completion=False)


def kind(method: str) -> str:
    """Return what a method does."""
    if method in LAYER_PRUNERS:
        return "layer by layer"
    return "merges" if method in MERGERS else "selects"


def named(row: str, names: Names) -> str:
    """Return the name of a row without its budget, with what differs from the method's defaults."""
    name = names.of(row)
    unsaid = names.unsaid.get(name.line)
    return f"**{markdown(name.short)}**" + (f", {markdown(unsaid)}" if unsaid else "")


def differences(pairs: Frame, base: str) -> dict[str, str]:
    """Return the difference of each row to another over all tasks, with its interval and a mark."""
    overall = pairs[(pairs["task"] == "all") & ((pairs["a"] == base) | (pairs["b"] == base))]
    if not len(overall):
        return {}
    found = {}
    corrected = holm(overall["p"].to_numpy(float))
    for (_, one), p in zip(overall.iterrows(), corrected, strict=True):
        other, sign = (one["a"], 1) if one["b"] == base else (one["b"], -1)
        low, high = sorted((sign * one["low"], sign * one["high"]))
        found[str(other)] = (
            f"{sign * one['difference']:+.1f} [{low:+.1f}, {high:+.1f}]{' *' if p <= LEVEL else ''}"
        )
    return found


def block(table: Frame, pairs: Frame, ratio: float, base: str, names: Names) -> list[str]:
    """Return the lines of one budget, best first."""
    rows = table[table["keep_ratio"] == ratio].sort_values(SCORE, ascending=False, kind="stable")
    visual = table["visual tokens"].max()
    mean = next((name for name in table.columns if "mean over layers" in name), "tokens")
    reference = next(iter(rows[rows["method"] == base]["setting"]), "")
    against = differences(pairs, reference)
    lines = [
        f"## {ratio * visual:.0f} of {visual:.0f} tokens a layer, on average",
        "",
        f"| method | how | tokens a layer | kept at the end | multiply-adds % | {SCORE} "
        f"| against {method_name(base)} |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for _, row in rows.iterrows():
        name = str(row["setting"])
        low, high = row[f"{SCORE} low"], row[f"{SCORE} high"]
        a_layer = row["tokens"] if pd.isna(row[mean]) else row[mean]
        lines.append(
            f"| {named(name, names)} | {kind(str(row['method']))} | {a_layer:.1f} "
            f"| {row['tokens']:.1f} | {row['MAC %']:.1f} "
            f"| {row[SCORE]:.1f} [{low:.1f}, {high:.1f}] | {against.get(name, '')} |"
        )
    return [*lines, ""]


@app.command()
def write(
    results: Annotated[Path, typer.Argument(help="folder of a sweep", exists=True)],
    page: Annotated[Path, typer.Argument(help="page to write")],
    base: Annotated[str, typer.Option(help="method that the others are compared with")] = "otprune",
) -> None:
    """Write the page."""
    table = pd.read_csv(results / "table.csv")
    pairs = pd.read_csv(results / "pairs.csv")
    manifest = json.loads((results / MANIFEST).read_text(encoding="utf-8"))
    names, rival = Names(manifest["configs"]), method_name(base)
    lines = ["# All methods at equal budgets", ""]
    lines += [
        f"{markdown(name)}: {markdown_code(value)}  " for name, value in manifest["origin"].items()
    ]
    lines += [
        "",
        "As many visual tokens enter a layer of the language model, on average over its layers,",
        "whether they are dropped before it or inside; what was reached stands beside. Score: mean",
        "over the benchmarks of score / unpruned score, in percent, with its 95 % interval over",
        f"documents. Against {rival}: paired difference in points with its interval; * where it is",
        "significant at 5 % after Holm's correction over the comparisons of the block. Schedules:",
        "the shape, which the budget scales. Every benchmark's score, all pairs and each answer",
        f"are in the folder `{results.name}`.",
        "",
    ]
    for ratio in sorted(table["keep_ratio"].dropna().unique(), reverse=True):
        lines += block(table, pairs, float(ratio), base, names)
    page.write_text("\n".join(lines))


if __name__ == "__main__":
    app()
