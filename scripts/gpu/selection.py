"""Part `selection`: OTPrune's selection as the release makes it, and in our ways.

The release's way is a loop of our own by its formula: the kernel in full, one image after another,
each pick read by the host. Ours: all of a selector's work for a batch, as users get it; and of
that the picks alone, by the loop without host reads, by the same loop captured as a CUDA graph and
replayed, and by one Triton program an image, each from kernels that are there as factors.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench_common import image_like_tokens, made_signals, median_ms
from bench_selection import plain_loop
from gpu.budget import Budget
from gpu.page import Page
from otprune import Signals, make_pruner, resolve_budget
from otprune.greedy.device import greedy_loop
from otprune.greedy.picks import Picks
from otprune.kernels import FactoredKernel

RATIO = 0.098
SIZES = ((576, 1024), (576, 4096), (2340, 1024), (2340, 4096))
BATCHES = (1, 8, 32)
TEXT = 60
REPEATS = 5
OTHERS = (
    "divprune", "farthest_point", "facility_location", "scope", "mmtok", "kmedoids", "dpp",
    "cdpruner",
)  # fmt: skip
"""Methods of the second table: those that a GPU could have a program for."""

NOTES = [
    f"Image-like tokens, ratio {RATIO}. Milliseconds for the whole batch, medians; what is in one "
    "row takes turns. Loop, graph and Triton: picks alone, from the kernels' factors; ours: the "
    "whole call of `rank_batch`, input checks and kernels included. Same: picks of the release's "
    "way that ours shares, and whether loop, graph and Triton agree. Saves: a prefill of a decoder "
    f"of LLaVA-1.5-7B's size with n + {TEXT} tokens, less one with k + {TEXT}.",
]

Ways = dict[str, Callable[[], list[Picks]]]


def failures() -> tuple[type[Exception], ...]:
    """Return what a way may raise on a GPU that it was never run on."""
    found: list[type[Exception]] = [RuntimeError, ValueError, OSError]
    if importlib.util.find_spec("triton") is not None:
        from triton.errors import TritonError  # type: ignore[import-not-found]

        found.append(TritonError)
    return tuple(found)


def captured(kernels: list[FactoredKernel], k: list[int]) -> Callable[[], list[Picks]]:
    """Return a call that replays `greedy_loop` for these very kernels, captured as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    # What is loaded or allocated at a first call cannot be captured.
    with torch.cuda.stream(stream):
        greedy_loop(kernels, k)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        picks = greedy_loop(kernels, k)

    def replay() -> list[Picks]:
        graph.replay()
        return picks

    return replay


def engines(kernels: list[FactoredKernel], k: list[int], device: str) -> tuple[Ways, dict]:
    """Return the ways of making the picks that work here, and why the others do not."""
    ways: Ways = {"loop": lambda: greedy_loop(kernels, k)}
    why: dict[str, str] = {}
    if device == "cpu":
        return ways, {"graph": "no GPU", "Triton": "no GPU"}

    def triton() -> Callable[[], list[Picks]]:
        from otprune.greedy.triton_program import greedy_programs

        greedy_programs(kernels, k)
        torch.cuda.synchronize()
        return lambda: greedy_programs(kernels, k)

    for name, make in (("graph", lambda: captured(kernels, k)), ("Triton", triton)):
        try:
            ways[name] = make()
        except ImportError:
            why[name] = "no triton"
        except failures() as error:
            why[name] = f"fails: {str(error).splitlines()[0][:80]}"
    return ways, why


def agreement(found: dict[str, list[list[int]]]) -> str:
    """Return whether all ways made the same picks as the first, or how many images differ."""
    (_, first), *others = found.items()
    differ = {
        name: sum(a != b for a, b in zip(first, orders, strict=True)) for name, orders in others
    }
    wrong = [f"{name} differs in {count} images" for name, count in differ.items() if count]
    return "; ".join(wrong) or "agree"


def row_of(tokens: list[Tensor], k: int, saves: float | None, device: str) -> dict[str, Any]:
    """Return times and picks for a batch."""
    pruner: Any = make_pruner("otprune")
    b, (n, d) = len(tokens), tokens[0].shape
    counts = [k] * b
    kernels = pruner._kernels(tokens, counts)
    ways, why = engines(kernels, counts, device)
    calls: list[Callable[[], object]] = [
        lambda: [plain_loop(one, k) for one in tokens],
        lambda: pruner.rank_batch(tokens, counts),
        lambda: pruner._kernels(tokens, counts),
        *ways.values(),
    ]
    released, ours, forming, *rest = median_ms(calls, REPEATS, device)
    by_way: dict[str, Any] = dict(zip(ways, rest, strict=True)) | why
    orders = {name: [one.order.tolist() for one in call()] for name, call in ways.items()}
    theirs = [plain_loop(one, k) for one in tokens]
    mine = [order.tolist() for order in pruner.rank_batch(tokens, counts)]
    shared = sum(len(set(a) & set(b)) for a, b in zip(theirs, mine, strict=True))
    return {
        "n": n,
        "d": d,
        "k": k,
        "batch": b,
        "release's way ms": released,
        "ours ms": ours,
        "times faster": released / ours,
        "kernels ms": forming,
        "loop ms": by_way["loop"],
        "graph ms": by_way["graph"],
        "Triton ms": by_way["Triton"],
        "same": f"{shared} of {k * b}; {agreement(orders)}",
        "saves ms": "-" if saves is None else saves,
        "ours, of what it saves": f"{100 * ours / saves:.2f} %" if (saves or 0) > 0 else "-",
    }


def decoder(device: str, *, small: bool) -> Any:
    """Return a decoder with random weights of LLaVA-1.5-7B's size; None without transformers."""
    if importlib.util.find_spec("transformers") is None:
        return None
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(vocab_size=64, max_position_embeddings=4096)
    if small:
        config = LlamaConfig(
            vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=4096,
        )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        model = LlamaModel._from_config(config, dtype=dtype, attn_implementation="sdpa")
    return model.eval().requires_grad_(False)


def saved_ms(model: Any, n: int, k: int, batch: int, device: str) -> float:
    """Return how much less a prefill takes with k visual tokens than with n, in milliseconds."""

    def call(length: int) -> Callable[[], object]:
        embeds = torch.randn(
            batch, length, model.config.hidden_size, device=device, dtype=model.dtype
        )
        return lambda: model(inputs_embeds=embeds, use_cache=True)

    whole, shorter = median_ms([call(n + TEXT), call(k + TEXT)], 3, device)
    return whole - shorter


def signals_of(n: int, d: int, device: str) -> Signals:
    """Return made signals of an image where its tokens are, the same at each call."""
    side = round(n**0.5)
    made = made_signals(n, (side, side), features=64, words=d)
    words = torch.randn(50, d, generator=torch.Generator().manual_seed(3))
    return replace(made.to(torch.device(device)), embed_words=lambda found: words[: len(found)])


def other_rows(n: int, d: int, batch: int, device: str) -> list[dict[str, Any]]:
    """Return the time of other methods for a batch, and of its images one after another."""
    k = resolve_budget(n, keep_ratio=RATIO)
    tokens = [image_like_tokens(n, d, seed=i).to(device) for i in range(batch)]
    rows = []
    for name in OTHERS:
        settings = {"relevance": "none"} if name == "cdpruner" else {}
        pruner = make_pruner(name, **settings)
        signals = [signals_of(n, d, device)] * batch if pruner.needs else None
        row: dict[str, Any] = {"method": name, "n": n, "d": d, "k": k, "batch": batch}
        try:
            together, alone = median_ms(
                [
                    lambda p=pruner, s=signals: p.rank_batch(tokens, [k] * batch, s),
                    lambda p=pruner, s=signals: [p.rank(t, k, s and s[0]) for t in tokens],
                ],
                3,
                device,
            )
        except failures() as error:
            rows.append(row | {"batch ms": f"fails: {str(error).splitlines()[0][:80]}"})
            continue
        first = signals and signals[0]
        apart = [pruner.rank(one, k, first) for one in tokens]
        batched = pruner.rank_batch(tokens, [k] * batch, signals)
        same = all(torch.equal(a, b) for a, b in zip(batched, apart, strict=True))
        on_cpu = pruner.rank(tokens[0].cpu(), k, first).tolist()
        here = apart[0].tolist()
        rows.append(
            row
            | {
                "batch ms": together,
                "one by one ms": alone,
                "same picks": "yes" if same else "no",
                "picks of a CPU": f"{len(set(on_cpu) & set(here))} of {k}",
            }
        )
    return rows


@torch.inference_mode()
def run(page: Page, budget: Budget, device: str, *, small: bool) -> None:
    """Add the tables."""
    page.notes += NOTES
    sizes = ((64, 32), (100, 16)) if small else SIZES
    batches = (1, 2) if small else BATCHES
    model = decoder(device, small=small)
    saves: dict[tuple[int, int], float] = {}
    needed = 0.0
    for batch in batches:
        for n, d in sizes:
            what = f"selection of {batch} images of {n} x {d}"
            if not budget.allows(what, needed):
                continue
            left, k = budget.left(), resolve_budget(n, keep_ratio=RATIO)
            if model is not None and (n, batch) not in saves:
                with budget.fits(f"prefill of {batch} prompts of {n + TEXT} tokens"):
                    saves[n, batch] = saved_ms(model, n, k, batch, device)
            with budget.fits(what):
                tokens = [image_like_tokens(n, d, seed=i).to(device) for i in range(batch)]
                page.add("OTPrune", [row_of(tokens, k, saves.get((n, batch)), device)])
            # The next may be eight times as many images, or four times the tokens.
            needed = 0.0 if small else 3 * (left - budget.left())
    del model
    for batch in batches:
        n, d = sizes[1]
        what = f"other methods, batch {batch}"
        if budget.allows(what, 0 if small else 10):
            with budget.fits(what):
                page.add("Other methods", other_rows(n, d, batch, device))
