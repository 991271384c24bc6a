"""One page that compares all methods at equal budgets, from the results of a sweep.

    .venv/bin/python scripts/methods_page.py results/mini-methods results/mini/methods.md

Nothing is computed but signs and order: scores, intervals and paired differences are those of the
folder's own table.csv and pairs.csv.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from otprune.pruners.registry import LAYER_PRUNERS, MERGERS

SCORE = "mean of ratios"
app = typer.Typer(add_completion=False)


def kind(method: str) -> str:
    """Return what a method does."""
    if method in LAYER_PRUNERS:
        return "layer by layer"
    return "merges" if method in MERGERS else "selects"


def against(pairs: pd.DataFrame, row: str, base: str) -> str:
    """Return the difference of a row to another over all tasks, with interval and Holm's p."""
    overall = pairs[pairs["task"] == "all"]
    for a, b, sign in ((row, base, 1), (base, row, -1)):
        found = overall[(overall["a"] == a) & (overall["b"] == b)]
        if len(found):
            one: Any = found.iloc[0]
            low, high = sorted((sign * one["low"], sign * one["high"]))
            mark = " *" if one["p_holm"] < 0.05 else ""
            return f"{sign * one['difference']:+.1f} [{low:+.1f}, {high:+.1f}]{mark}"
    return "–"


def block(table: pd.DataFrame, pairs: pd.DataFrame, ratio: float, base: str) -> list[str]:
    """Return the lines of one budget, best first."""
    rows = table[table["keep_ratio"] == ratio].sort_values(SCORE, ascending=False, kind="stable")
    visual = table["visual tokens"].max()
    share = next(name for name in table.columns if name == "MAC %")
    mean = next((name for name in table.columns if "mean over layers" in name), "tokens")
    reference = next(iter(rows[rows["method"] == base]["setting"]), "")
    lines = [
        f"## {ratio * visual:.0f} of {visual:.0f} tokens a layer, on average",
        "",
        f"| setting | how | tokens a layer | left at the end | multiply-adds % | {SCORE} "
        f"| against {base} |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for _, row in rows.iterrows():
        low, high = row[f"{SCORE} low"], row[f"{SCORE} high"]
        name = str(row["setting"])
        a_layer = row["tokens"] if pd.isna(row[mean]) else row[mean]
        lines.append(
            f"| {name} | {kind(str(row['method']))} | {a_layer:.1f} | {row['tokens']:.1f} "
            f"| {row[share]:.1f} | {row[SCORE]:.1f} [{low:.1f}, {high:.1f}] "
            f"| {'' if name == reference else against(pairs, name, reference)} |"
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
    origin = json.loads((results / "manifest.json").read_text())["origin"]
    lines = ["# All methods at equal budgets", ""]
    lines += [f"{name}: `{value}`  " for name, value in origin.items()]
    lines += [
        "",
        "As many visual tokens enter a layer of the language model, on average over its layers,",
        "whether they are dropped before it or inside; what was reached stands beside. Score: mean",
        "over the benchmarks of score / unpruned score, in percent, with its 95 % interval over",
        f"documents. Against {base}: paired difference in points with its interval; * where it is",
        "significant at 5 % after Holm's correction. The same folder has every benchmark's score,",
        "all pairs and each answer.",
        "",
    ]
    for ratio in sorted(table["keep_ratio"].dropna().unique(), reverse=True):
        lines += block(table, pairs, float(ratio), base)
    page.write_text("\n".join(lines))


if __name__ == "__main__":
    app()
