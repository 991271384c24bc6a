"""The parts of README.md and docs/methods.md that are generated.

    .venv/bin/python scripts/front_page.py            write them
    bash scripts/refresh_pages.sh                     these, and the front page's picture

A part begins with ``<!-- NAME: scripts/front_page.py -->`` and ends with ``<!-- end of NAME -->``.
Names, kinds, files and sources of methods are the registry's; scores are those of
``results/mini/table.csv``, distances those of ``results/selection/transport.json``. A test compares
the pages with what is made here.
"""

import inspect
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import typer
from otprune_lmms.cli.method_sources import paper_of
from otprune_lmms.reporting.escape import markdown
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.names import CONTROLS

from otprune.registry import BUILT_IN, LAYER_PRUNERS, MERGERS

ROOT = Path(__file__).resolve().parents[1]
TRANSPORT = ROOT / "results" / "selection" / "transport.json"
PHOTOS = "DINOv2-S, hidden state 10: 8 photos, 56 of 576 tokens"
"""The table of distances that is shown."""
TABLE = ROOT / "results" / "mini" / "table.csv"
SCORE = "mean of ratios"

IDEAS = {
    "otprune": "greedily maximise log det(I + γ(V̂V̂ᵀ)²) over the kept tokens",
    "w2greedy": "greedily lower the Gaussian 2-Wasserstein distance itself",
    "divprune": "keep tokens far from each other: max-min cosine distance",
    "dpp": "greedily maximise the determinant of cosines",
    "herding": "keep the running mean of the kept on the mean of all",
    "facility_location": "give every token a similar kept token",
    "kmedoids": "centres of clusters of similar tokens",
    "farthest_point": "always take the token farthest from all kept",
    "fastervlm": "highest CLS attention",
    "vispruner": "attended tokens, then others without duplicates",
    "scope": "cover the other tokens, weighted by CLS attention",
    "holov": "every chunk of the image keeps its share",
    "cdpruner": "a determinantal process weighted by relevance to the question",
    "mmtok": "cover the question's words and the image",
    "random": "a draw by seed and image",
    "uniform": "every n/k-th token",
    "grid": "spread evenly over rows and columns",
    "first_k": "the first tokens",
    "last_k": "the last tokens",
    "visionzip": "what CLS attends to, and means of the rest",
    "prumerge": "attended patches take in their neighbours; PruMerge+ by a preset",
    "tome": "merge pairs with similar keys, at the vision encoder's output",
    "pooling": "means over the squares of a coarser raster",
    "downsample": "a smaller image through the same vision encoder",
    "fastv": "the last token's attention at an early layer",
    "pyramiddrop": "the last token's attention, in three stages",
    "transprune": "what layers change most, and what the question attends to",
    "sparsevlm": "text tokens that look like the image rate it",
    "dart": "drop what most resembles a few pivot tokens",
    "tops": "relevance, coverage and diversity in three stages",
    "vtw": "no visual token after some layer",
}
"""What a method does, in a clause."""

OWN = {"w2greedy": "ours"}
"""Sources of methods whose docstring names no paper; the others are plain baselines."""

_ARXIV = re.compile(r"arXiv (\S+)")

app = typer.Typer(add_completion=False)


def kind(name: str) -> str:
    """Return what a method does with tokens."""
    if name in LAYER_PRUNERS:
        return "drops by layer"
    return "merges" if name in MERGERS else "selects"


def source(name: str) -> str:
    """Return the paper of a method, with a link where it is on arXiv."""
    said = paper_of(inspect.getdoc(BUILT_IN[name]) or "")
    if not said:
        return OWN.get(name, "baseline")
    arxiv = _ARXIV.fullmatch(said)
    return f"[{said}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else said


def catalogue() -> list[str]:
    """Return the table of methods: name with its file, what it does with tokens, idea, source."""
    lines = ["| method | how | idea | source |", "|---|---|---|---|"]
    for name, method in BUILT_IN.items():
        file = f"src/{method.__module__.replace('.', '/')}.py"
        lines.append(f"| [`{name}`]({file}) | {kind(name)} | {IDEAS[name]} | {source(name)} |")
    return lines


def scores(table: Frame) -> list[str]:
    """Return the result table: a row a method, a column a budget, with 95 % intervals.

    Controls come last. A method that keeps another number of tokens than most at a budget says how
    many. The best score of a budget is bold.
    """
    pruned = table[table["keep_ratio"].notna()]
    ratios = sorted(pruned["keep_ratio"].unique(), reverse=True)
    usual = {
        ratio: Counter(pruned[pruned["keep_ratio"] == ratio]["tokens"].round()).most_common(1)[0][0]
        for ratio in ratios
    }
    best = pruned.groupby("keep_ratio")[SCORE].max()
    visual = table["visual tokens"].max()
    heads = [f"{usual[ratio]:.0f} of {visual:.0f} tokens" for ratio in ratios]
    lines = [f"| method | {' | '.join(heads)} |", f"|---|{'--:|' * len(ratios)}"]
    for name, own in _by_name(pruned):
        cells = []
        for ratio in ratios:
            found = own[own["keep_ratio"] == ratio]
            cells.append(_cell(found.iloc[0], usual[ratio], best[ratio]) if len(found) else "")
        said = markdown(name) + (" (control)" if own["method"].iloc[0] in CONTROLS else "")
        lines.append(f"| {said} | {' | '.join(cells)} |")
    return lines


def _by_name(pruned: Frame) -> Iterable[tuple[str, Frame]]:
    """Return the rows by name without the budget, in the table's order, controls last."""
    pruned = pruned.sort_values("method", key=lambda one: one.isin(CONTROLS), kind="stable")
    names = [
        str(name).replace(f" {ratio:g}", "", 1)
        for name, ratio in zip(pruned["name"], pruned["keep_ratio"], strict=True)
    ]
    for name in dict.fromkeys(names):
        yield name, pruned[[one == name for one in names]]


def _cell(row: "pd.Series[float]", usual: float, best: float) -> str:
    score = f"{row[SCORE]:.1f}"
    shown = f"**{score}**" if score == f"{best:.1f}" else score
    others = "" if round(row["tokens"]) == usual else f" ({row['tokens']:.0f} tokens)"
    return f"{shown} [{row[f'{SCORE} low']:.1f}, {row[f'{SCORE} high']:.1f}]{others}"


def distances(transport: Path) -> list[str]:
    """Return the table of exact distances between kept and all tokens, the smallest first."""
    rows = json.loads(transport.read_text(encoding="utf-8"))["tables"][PHOTOS]
    lines = ["| method | W2 |", "|---|--:|"]
    for row in sorted(rows, key=lambda one: one["W2"]):
        lines.append(f"| `{row['method']}` | {row['W2']:.3f} |")
    return lines


def parts() -> dict[Path, dict[str, list[str]]]:
    """Return by page the lines of each of its generated parts."""
    return {
        ROOT / "README.md": {"methods": catalogue(), "scores": scores(pd.read_csv(TABLE))},
        ROOT / "docs" / "methods.md": {"distances": distances(TRANSPORT)},
    }


def updated(text: str, made: dict[str, list[str]]) -> str:
    """Return a page with its generated parts replaced.

    Raises:
        ValueError: a part is not on the page exactly once.
    """
    for name, lines in made.items():
        begin, end = f"<!-- {name}: scripts/front_page.py -->", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"the page must have one part {begin} ... {end}")
        before, rest = text.split(begin)
        after = rest.split(end)[1]
        text = f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}"
    return text


@app.command()
def main() -> None:
    """Write the generated parts."""
    for page, made in parts().items():
        text = page.read_text(encoding="utf-8")
        new = updated(text, made)
        page.write_text(new, encoding="utf-8")
        print(f"{page.relative_to(ROOT)}: {'changed' if new != text else 'as it was'}")


if __name__ == "__main__":
    app()
