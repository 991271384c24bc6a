r"""Selection against the authors' released code, on the same tokens, taking turns in one process.

    .venv/bin/python scripts/bench_against_releases.py \
        --otprune PATH --divprune PATH --cdpruner PATH

Each PATH is a checkout that you have of github.com/xiwenc1/OTPrune, vbdi/divprune or
Theia-4869/CDPruner; give one or several. Nothing of theirs is part of this repository: the
functions that select tokens are taken out of the checkout's own ``llava_arch.py`` when the script
runs, so their other modules and requirements are not needed. Writes
results/selection/<device>-releases.md and .json.
"""

import ast
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Annotated, Any

import torch
import typer
from otprune_lmms import provenance

from bench_common import ROOT, image_like_tokens, made_signals, write_tables
from otprune import Signals, make_pruner, resolve_budget
from otprune.compiled import loops_for

RATIO = 0.098
SIZES = ((576, 1024), (576, 4096), (1176, 4096), (2340, 1024), (2340, 4096), (2880, 4096))
GRIDS = {576: (24, 24), 1176: (28, 42), 2340: (45, 52), 2880: (48, 60)}
SEEDS = 16
Select = Callable[[torch.Tensor, int, Signals], list[int]]


def released_functions(checkout: Path, *wanted: str) -> list[FunctionType]:
    """Return functions and methods of a checkout's ``llava_arch.py``.

    Raises:
        ValueError: no such file in the checkout, or several; a function that is not in it.
    """
    found = sorted(checkout.rglob("llava/model/llava_arch.py"))
    if len(found) != 1:
        raise ValueError(
            f"{checkout} must hold one llava/model/llava_arch.py, got {len(found)}: is it a "
            "checkout of the released code?"
        )
    tree = ast.parse(found[0].read_text(), filename=str(found[0]))
    functions: dict[str, ast.stmt] = {}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name not in wanted:
            continue
        functions[function.name] = function
        # Annotations may name what is not imported here.
        function.returns = None
        for argument in (*function.args.args, *function.args.kwonlyargs):
            argument.annotation = None
    missing = [name for name in wanted if name not in functions]
    if missing:
        raise ValueError(f"{found[0]} must define {', '.join(missing)}")
    names: dict[str, Any] = {"torch": torch}
    module = ast.Module(body=list(functions.values()), type_ignores=[])
    exec(compile(module, str(found[0]), "exec"), names)
    return [names[name] for name in wanted]


def released_otprune(checkout: Path) -> Select:
    """Return the selection of a checkout of OTPrune."""
    select, _ = released_functions(checkout, "OTPrune", "greedy_select")

    def run(tokens: torch.Tensor, k: int, signals: Signals) -> list[int]:
        return select(None, tokens, len(tokens), None, None, k / len(tokens))[0].tolist()

    return run


def released_divprune(checkout: Path) -> Select:
    """Return the selection of a checkout of DivPrune."""
    select, cosines = released_functions(checkout, "DivPrune", "pairwise_cosine_similarity")
    model = SimpleNamespace(pairwise_cosine_similarity=lambda matrix: cosines(None, matrix))

    def run(tokens: torch.Tensor, k: int, signals: Signals) -> list[int]:
        return select(model, tokens, len(tokens), None, k / len(tokens))[0].tolist()

    return run


def released_cdpruner(checkout: Path) -> Select:
    """Return the selection of a checkout of CDPruner; its tower and projector give made tokens."""
    (select,) = released_functions(checkout, "encode_images")

    def run(tokens: torch.Tensor, k: int, signals: Signals) -> list[int]:
        given = (tokens[None], signals.given("clip_patches")[None], signals.given("clip_text"))
        inner = SimpleNamespace(
            get_vision_tower=lambda: lambda images, texts: given, mm_projector=lambda x: x
        )
        model = SimpleNamespace(get_model=lambda: inner, visual_token_num=k)
        return select(model, None)[1][0].nonzero()[:, 0].tolist()

    return run


@dataclass(frozen=True)
class Compared:
    """A method and its released code."""

    name: str
    released: Select

    def ours(self, tokens: torch.Tensor, k: int, signals: Signals, **settings: Any) -> list[int]:
        """Return the positions that our method keeps."""
        return make_pruner(self.name, **settings).select(tokens, k, signals=signals).tolist()


def cpu_ms(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """Return the least CPU time of each call in ms, all threads together; calls take turns.

    CPU time and the least of several, so that other work on the machine counts little.
    """
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, spent in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            if turn:
                spent.append((time.process_time() - start) * 1e3)
    return [min(spent) for spent in times]


def times_table(compared: list[Compared], repeats: int, threads: int) -> list[dict]:
    """Time of ours and theirs by size, float32 tokens."""
    rows = []
    torch.set_num_threads(threads)
    for n, d in SIZES:
        tokens, k = image_like_tokens(n, d), resolve_budget(n, keep_ratio=RATIO)
        signals = made_signals(n, GRIDS[n], features=1024, words=d)
        for one in compared:
            with torch.inference_mode():
                calls = [
                    lambda o=one, v=tokens, c=k, s=signals: o.ours(v, c, s),
                    lambda o=one, v=tokens, c=k, s=signals: o.released(v, c, s),
                ]
                ours, theirs = cpu_ms(calls, repeats)
                shared = len(set(calls[0]()) & set(calls[1]()))
            row = {
                "method": one.name,
                "n": n,
                "d": d,
                "ours CPU ms": ours,
                "theirs CPU ms": theirs,
                "ours / theirs": ours / theirs,
                "picks in common": f"{shared}/{k}",
            }
            rows.append(row)
            print(row, file=sys.stderr)
    return rows


def half_table(compared: list[Compared], n: int, d: int, seeds: int) -> list[dict]:
    """How many picks are float64's where tokens are half precision, the fewest of ``seeds``."""
    rows = []
    k = resolve_budget(n, keep_ratio=RATIO)
    for one in compared:
        for dtype in (torch.float16, torch.bfloat16):
            counts: dict[str, list[int]] = {"ours": [], "theirs": []}
            equal = 0
            for seed in range(seeds):
                tokens = image_like_tokens(n, d, seed).to(dtype)
                signals = made_signals(n, GRIDS[n], features=1024, words=d)
                with torch.inference_mode():
                    theirs = one.released(tokens, k, signals)
                    exact = one.released(tokens.double(), k, signals)
                    counts["theirs"].append(len(set(theirs) & set(exact)))
                    counts["ours"].append(len({*one.ours(tokens, k, signals)} & set(exact)))
                    if one.name == "otprune":
                        preset = make_pruner("otprune", preset="released")
                        equal += preset.select(tokens, k).tolist() == theirs
            rows.append(
                {
                    "method": one.name,
                    "dtype": str(dtype).removeprefix("torch."),
                    "k": k,
                    "ours as float64": f"{min(counts['ours'])}-{max(counts['ours'])}",
                    "theirs as float64": f"{min(counts['theirs'])}-{max(counts['theirs'])}",
                    "preset `released` equals theirs": (
                        f"{equal} of {seeds}" if one.name == "otprune" else "-"
                    ),
                }
            )
    return rows


def main(
    otprune: Annotated[Path | None, typer.Option(help="checkout of OTPrune")] = None,
    divprune: Annotated[Path | None, typer.Option(help="checkout of DivPrune")] = None,
    cdpruner: Annotated[Path | None, typer.Option(help="checkout of CDPruner")] = None,
    repeats: Annotated[int, typer.Option(min=1)] = 9,
    out: Annotated[Path, typer.Option()] = ROOT / "results" / "selection",
) -> None:
    """Time ours against the releases that are given, with one thread and with two."""
    readers = {
        "otprune": (otprune, released_otprune),
        "divprune": (divprune, released_divprune),
        "cdpruner": (cdpruner, released_cdpruner),
    }
    compared = [
        Compared(name, read(path)) for name, (path, read) in readers.items() if path is not None
    ]
    if not compared:
        raise typer.BadParameter("give a checkout: --otprune, --divprune or --cdpruner PATH")
    command = "python scripts/bench_against_releases.py " + " ".join(
        f"--{one.name} PATH" for one in compared
    )
    origin = provenance.origin(command, "cpu")
    origin["compiled loops"] = "yes" if loops_for(torch.empty(0)) else "no"
    tables = {
        f"Ratio {RATIO}, image-like float32 tokens, {threads} thread{'s' * (threads > 1)}": (
            times_table(compared, repeats, threads)
        )
        for threads in (1, 2)
    }
    tables[f"Half precision: picks that are float64's, 576 x 1024, {SEEDS} seeds"] = half_table(
        compared, 576, 1024, SEEDS
    )
    notes = [
        "CPU time of all threads together, the least of several runs that take turns, which other",
        "work on the machine disturbs little. Ours checks its input and sorts what it keeps;",
        "theirs does neither.",
        "float64's picks are those of the released code on the same half-precision values.",
    ]
    print(write_tables(out / "cpu-releases", "Selection against releases", origin, tables, notes))


if __name__ == "__main__":
    typer.run(main)
