"""Time and memory of selection against a plain loop in the released code's style, same run.

    .venv/bin/python scripts/bench_selection.py run                  # on the CPU, about 15 minutes
    .venv/bin/python scripts/bench_selection.py run --device cuda    # the same on a GPU
    .venv/bin/python scripts/bench_selection.py run --long           # and 20 000, 100 000 tokens
    .venv/bin/python scripts/bench_selection.py methods              # the last tables alone

The plain loop forms V Vᵀ and K = I + γ (V Vᵀ)² in full and reads every pick on the host. Both sides
get float32 tokens, validation included on ours. All methods are measured twice: selectors and
mergers by themselves, and every method in the prefill of a LLaVA with random weights, beside what
it saves there: results/selection/<device>-methods.md and .json. The rest: <device>.md and .json.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from otprune_lmms import provenance

from bench_common import (
    KINDS,
    ROOT,
    added_peak_mib,
    image_like_tokens,
    markdown,
    median_ms,
)
from otprune import make_pruner, resolve_budget

RATIO = 0.098
SIZES = (576, 1176, 2340, 2880)
WIDTHS = (1024, 4096, 5120)
SWEEP = (0.03, 0.05, 0.098, 0.15, 0.2, 0.25)
LONG_SIZES, LONG_WIDTH, LONG_K = (20_000, 100_000), 1024, 1000
app = typer.Typer(add_completion=False)


def plain_loop(tokens: torch.Tensor, k: int, gamma: float = 0.01) -> list[int]:
    """Return OTPrune's picks the plain way: kernel in full, one host read per pick."""
    scaled = tokens / tokens.norm(dim=-2, keepdim=True)
    similarity = scaled @ scaled.T
    kernel = torch.eye(len(tokens), device=tokens.device) + (gamma * similarity) @ similarity.T
    factor = torch.zeros(k, len(tokens), device=tokens.device)
    variance = kernel.diagonal().clone()
    picks = [int(variance.argmax())]
    while len(picks) < k:
        j, t = picks[-1], len(picks) - 1
        row = (kernel[j] - factor[:t, j] @ factor[:t]) / variance[j].sqrt()
        factor[t] = row
        variance -= row * row
        picks.append(int(variance.argmax()))
    return picks


@app.command(hidden=True)
def memory(n: int, d: int, k: int, which: str, device: str) -> None:
    """Print the peak memory in MiB that one selection adds to its tokens; for a fresh process."""
    tokens = image_like_tokens(n, d).to(device)
    select = plain_loop if which == "plain" else make_pruner("otprune").rank
    select(tokens[:50], 5)
    print(added_peak_mib(lambda: select(tokens, k), device))


def peak_mib(n: int, d: int, k: int, which: str, device: str) -> float:
    """Return the peak memory of one selection, measured in a process of its own."""
    command = [sys.executable, __file__, "memory", str(n), str(d), str(k), which, device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def agreement(a: list[int], b: list[int]) -> str:
    """Return how many picks two runs share."""
    return f"{len(set(a) & set(b))}/{len(a)}"


def main_table(device: str, repeats: int) -> list[dict]:
    """Time and memory over sizes and widths at ratio 0.098, image-like tokens."""
    rows = []
    pruner = make_pruner("otprune")
    for n in SIZES:
        for d in WIDTHS:
            tokens, k = image_like_tokens(n, d).to(device), resolve_budget(n, keep_ratio=RATIO)
            plain, ours = median_ms(
                [lambda v=tokens, c=k: plain_loop(v, c), lambda v=tokens, c=k: pruner.rank(v, c)],
                repeats,
                device,
            )
            memories = [peak_mib(n, d, k, which, device) for which in ("plain", "ours")]
            exact = make_pruner("otprune", accumulate="float64").rank(tokens, k).tolist()
            rows.append(
                {
                    "n": n,
                    "d": d,
                    "k": k,
                    "plain ms": plain,
                    "ours ms": ours,
                    "speed-up": plain / ours,
                    "plain MiB": memories[0],
                    "ours MiB": memories[1],
                    "plain as float64": agreement(plain_loop(tokens, k), exact),
                    "ours as float64": agreement(pruner.rank(tokens, k).tolist(), exact),
                }
            )
            print(rows[-1], file=sys.stderr)
    return rows


def kinds_table(device: str, repeats: int) -> list[dict]:
    """Speed-up by the character of the tokens: how much is saved depends on it."""
    rows = []
    pruner = make_pruner("otprune")
    for n, d in ((576, 1024), (2340, 1024), (2340, 4096)):
        k = resolve_budget(n, keep_ratio=RATIO)
        for kind, make in KINDS.items():
            tokens = make(n, d).to(device)
            plain, ours = median_ms(
                [lambda v=tokens, c=k: plain_loop(v, c), lambda v=tokens, c=k: pruner.rank(v, c)],
                repeats,
                device,
            )
            rows.append(
                {
                    "tokens": kind,
                    "n": n,
                    "d": d,
                    "plain ms": plain,
                    "ours ms": ours,
                    "speed-up": plain / ours,
                }
            )
    return rows


def sweep_table(device: str, repeats: int) -> list[dict]:
    """Six ratios by ranking once, against the largest alone and against six plain runs."""
    rows = []
    pruner = make_pruner("otprune")
    for n, d in ((576, 1024), (576, 4096), (2340, 4096)):
        tokens = image_like_tokens(n, d).to(device)
        budgets = [resolve_budget(n, keep_ratio=ratio) for ratio in SWEEP]

        def sweep(v: torch.Tensor = tokens, ks: list[int] = budgets) -> list[torch.Tensor]:
            order = pruner.rank(v, max(ks))
            return [order[:k].sort().values for k in ks]

        def largest(v: torch.Tensor = tokens, ks: list[int] = budgets) -> torch.Tensor:
            return pruner.select(v, max(ks))

        def plain(v: torch.Tensor = tokens, ks: list[int] = budgets) -> list[list[int]]:
            return [sorted(plain_loop(v, k)) for k in ks]

        times = median_ms([sweep, largest, plain], repeats, device)
        rows.append(
            {
                "n": n,
                "d": d,
                "six ratios ms": times[0],
                "largest ms": times[1],
                "six / largest": times[0] / times[1],
                "six plain ms": times[2],
                "speed-up": times[2] / times[0],
            }
        )
    return rows


def long_table(device: str) -> list[dict]:
    """Thousands of tokens: long video. One run each."""
    rows = []
    pruner = make_pruner("otprune")
    for n in LONG_SIZES:
        tokens = image_like_tokens(n, LONG_WIDTH).to(device)
        row: dict = {
            "n": n,
            "d": LONG_WIDTH,
            "k": LONG_K,
            "ours s": median_ms([lambda v=tokens: pruner.rank(v, LONG_K)], 1, device)[0] / 1e3,
            "ours MiB": peak_mib(n, LONG_WIDTH, LONG_K, "ours", device),
            "V Vᵀ and K MiB": 2 * n * n * 4 / 2**20,
        }
        if n <= LONG_SIZES[0]:
            plain = median_ms([lambda v=tokens: plain_loop(v, LONG_K)], 1, device)[0] / 1e3
            row |= {"plain s": plain, "speed-up": plain / row["ours s"]}
        else:
            row |= {"plain s": "not run", "speed-up": "not run"}
        rows.append(row)
        print(row, file=sys.stderr)
    return rows


TITLES = {
    "main": "OTPrune at ratio 0.098, image-like tokens, against the plain loop",
    "kinds": "The same by the character of the tokens",
    "sweep": f"A sweep over ratios {', '.join(map(str, SWEEP))}: one ranking against six runs",
    "methods": "Every method before the language model at its defaults, d = 1024, ratio 0.098",
    "prefill": "Every method in a prefill, 192 of 576 tokens a layer",
    "long": "Long video",
}


DEVICE = Annotated[str, typer.Option(help="cpu or cuda")]
REPEATS = Annotated[int, typer.Option(help="timed runs of each number; the median counts")]
OUT = Annotated[Path, typer.Option(help="folder to write to")]
FOLDER = ROOT / "results" / "selection"
MEDIANS = "Medians; what is compared takes turns in one process."
NOTES = f"""{MEDIANS} Peak memory is what a selection adds to
its tokens, in a process of its own. The plain loop forms two n x n matrices. As float64:
picks shared with a float64 run.
"""
METHOD_NOTES = f"""{MEDIANS} Mergers alone: weights and mixing, the projector not.

In a prefill, from ids and visual tokens to the first logits, 192 tokens stay before the
language model, or as many enter a layer on average where a method drops them inside it.
Selection is all that chooses or merges tokens there, the projector's second run and the
attention rows that are computed again included. Signals are made and cost nothing: the
vision tower's part is left out, and with it the second run that `downsample` needs.
"""


def written(
    stem: Path, title: str, origin: dict, tables: dict[str, list[dict]], notes: str
) -> None:
    """Print tables, and write them beside their origin."""
    lines = [f"# {title} on {origin['hardware']}", ""]
    lines += [f"{name}: `{value}`  " for name, value in origin.items()]
    for name, rows in tables.items():
        lines += ["", f"## {TITLES[name]}", "", markdown(rows)]
    lines += ["", notes]
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".md").write_text("\n".join(lines))
    content = {"origin": origin, "tables": tables}
    stem.with_suffix(".json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(lines))


@app.command()
def run(
    device: DEVICE = "cpu",
    repeats: REPEATS = 9,
    long: Annotated[bool, typer.Option(help="also 20 000 and 100 000 tokens")] = False,
    out: OUT = FOLDER,
) -> None:
    """Measure, print and write all tables."""
    command = f"python scripts/bench_selection.py run --device {device} --repeats {repeats}"
    origin = provenance.origin(command + (" --long" if long else ""), device)
    tables = {
        "main": main_table(device, repeats),
        "kinds": kinds_table(device, repeats),
        "sweep": sweep_table(device, repeats),
    }
    if long:
        tables["long"] = long_table(device)
    written(out / device, "Selection", origin, tables, NOTES)
    methods(device, repeats, out)


@app.command()
def methods(device: DEVICE = "cpu", repeats: REPEATS = 9, out: OUT = FOLDER) -> None:
    """Measure, print and write the tables of all methods."""
    # Here and not above: a process that measures memory is to load no model.
    from bench_prefill import methods_table, prefill_table

    command = f"python scripts/bench_selection.py methods --device {device} --repeats {repeats}"
    origin = provenance.origin(command, device)
    tables = {
        "methods": methods_table(device, repeats, RATIO),
        "prefill": prefill_table(device, repeats),
    }
    written(out / f"{device}-methods", "All methods", origin, tables, METHOD_NOTES)


if __name__ == "__main__":
    app()
