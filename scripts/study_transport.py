"""How near each method's kept tokens stay to all tokens of a photo, and what picking them costs.

    .venv/bin/python scripts/study_transport.py                              # four committed photos
    .venv/bin/python scripts/study_transport.py tokens.safetensors --out results/selection

Tokens come from scripts/make_real_tokens.py. They are brought to unit norm before anything is
measured, so distances lie between 0 and 2; selection sees them as they are. Lower is nearer for
every distance. These are distances between token sets, not scores of a model: docs/analysis.md
compares the two.
"""

import json
import shlex
import statistics
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from otprune_lmms import provenance
from rich import box
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError
from safetensors.torch import load_file

from bench_common import ROOT
from otprune import Selector, Signals, make_pruner, resolve_budget
from otprune.kernels import unit_rows
from otprune.registry import SELECTORS
from otprune.wasserstein import coverage, effective_rank, exact_w2, gaussian_w2

MEASURES = {
    "W2": exact_w2,
    "Gauss": gaussian_w2,
    "0-mean": lambda tokens, kept: gaussian_w2(tokens, kept, centred=False),
    "cover": coverage,
    "rank": lambda tokens, kept: effective_rank(tokens[kept]),
}
DRAWS = 10
LEGEND = (
    "Means over photos, on unit-norm tokens; lower is nearer. W2: exact 2-Wasserstein distance, "
    "uniform masses. Gauss: of the Gaussians with the same means and covariances; 0-mean: of "
    "those with the same raw second moments. cover: root mean squared distance of a token to "
    "its nearest kept token. rank: effective rank of the kept tokens. ms: one selection. < chance: "
    "photos where W2 is below the mean of ten random draws, which is also the row `random`. "
    "Distances between token sets are no scores of a model."
)
GRID = (24, 24)


def measure(tokens: torch.Tensor, pruner: Selector, k: int) -> dict[str, float]:
    """Return every measure of one method on one photo, and the milliseconds of selection."""
    signals = Signals(grid=GRID)
    pruner.select(tokens, k, signals=signals)
    start = time.perf_counter()
    kept = pruner.select(tokens, k, signals=signals)
    spent = (time.perf_counter() - start) * 1e3
    units = unit_rows(tokens)
    return {name: f(units, kept) for name, f in MEASURES.items()} | {"ms": spent}


def study(tokens: dict[str, torch.Tensor], k: int) -> list[dict]:
    """Return one row a method: means over photos, and on how many it is nearer than chance."""
    chance = {
        photo: [measure(v, make_pruner("random", seed=seed), k) for seed in range(DRAWS)]
        for photo, v in tokens.items()
    }
    expected = {p: statistics.mean(d["W2"] for d in draws) for p, draws in chance.items()}
    rows = []
    # The tokens come alone: methods that need more about them are left out.
    alone = {name: method.needs for name, method in SELECTORS.items()}
    for name in (name for name, needs in alone.items() if needs == frozenset()):
        if name == "random":
            results = {p: _mean(draws) for p, draws in chance.items()}
        else:
            results = {photo: measure(v, make_pruner(name), k) for photo, v in tokens.items()}
        nearer = sum(results[photo]["W2"] < expected[photo] for photo in tokens)
        row: dict = {"method": name} | _mean(list(results.values()))
        row["< chance"] = "-" if name == "random" else f"{nearer}/{len(tokens)}"
        rows.append(row)
    return sorted(rows, key=lambda row: row["W2"])


def _mean(results: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.mean(r[name] for r in results) for name in results[0]}


def texts(row: dict) -> list[str]:
    """Return a row's values as text."""
    digits = {"rank": 1, "ms": 2}
    return [
        f"{value:.{digits.get(name, 3)}f}" if isinstance(value, float) else str(value)
        for name, value in row.items()
    ]


def show(rows: list[dict], title: str) -> None:
    """Print a table to the terminal."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*texts(row))
    Console().print(table)


def main(
    source: Annotated[
        Path, typer.Argument(help="safetensors file of tokens", exists=True, dir_okay=False)
    ] = (ROOT / "tests" / "data" / "real_tokens.safetensors"),
    keep_ratio: Annotated[float, typer.Option(help="share of tokens kept")] = 0.098,
    out: Annotated[Path | None, typer.Option(help="folder for transport.md and .json")] = None,
) -> None:
    """Measure every method on every photo and print one table for each hidden state."""
    try:
        k = resolve_budget(GRID[0] * GRID[1], keep_ratio=keep_ratio)
        stored = load_file(source)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except SafetensorError as error:
        raise typer.BadParameter(f"{source} is no safetensors file: {error}") from None
    words = ["python", "scripts/study_transport.py", str(source), "--keep-ratio", str(keep_ratio)]
    command = shlex.join(words)
    origin = provenance.origin(command, "cpu")
    layers = sorted({int(name.split("/")[1]) for name in stored})
    tables = {}
    for layer in layers:
        tokens = {
            name.split("/")[0]: value.float()
            for name, value in sorted(stored.items())
            if name.endswith(f"/{layer}")
        }
        title = f"DINOv2-S, hidden state {layer}: {len(tokens)} photos, {k} of 576 tokens"
        tables[title] = study(tokens, k)
        show(tables[title], title)
    print(LEGEND)
    if out is not None:
        write(out, origin, tables)


def write(out: Path, origin: dict[str, str], tables: dict[str, list[dict]]) -> None:
    """Write the tables with their origin."""
    lines = ["# Kept tokens against all tokens of real photos", ""]
    lines += [f"{name}: `{value}`  " for name, value in origin.items()]
    for title, rows in tables.items():
        columns = list(rows[0])
        lines += ["", f"## {title}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(texts(row))} |" for row in rows]
    lines += [
        "",
        LEGEND,
        "",
    ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "transport.md").write_text("\n".join(lines))
    (out / "transport.json").write_text(
        json.dumps({"origin": origin, "tables": tables}, indent=1, ensure_ascii=False) + "\n"
    )


if __name__ == "__main__":
    typer.run(main)
