"""What benchmark scripts share: made tokens, timing, tables."""

import ctypes
import gc
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from otprune import Signals
from otprune.signals import TOKEN_AXIS, signal_shape

ROOT = Path(__file__).parent.parent


def image_like_tokens(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Return n tokens of a smooth random field plus noise and a common mean, [n d] float32.

    Neighbours on a square grid are alike and a few directions carry most of the energy, as in
    patch tokens. Of the kinds here it is the hardest for selection that looks only at candidates.
    """
    generator = torch.Generator().manual_seed(seed)
    side = max(1, round(n**0.5))
    index = torch.arange(n)
    places = torch.stack([index // side, index % side], dim=1).float()
    waves = torch.randn(2, 40, generator=generator) * 4 / side
    field = torch.sin(places @ waves + 6.28 * torch.rand(40, generator=generator))
    signal = field @ torch.randn(40, d, generator=generator) / 3
    noise = 0.15 * torch.randn(n, d, generator=generator)
    return signal + noise + torch.randn(d, generator=generator)


def clustered_tokens(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Return n tokens around twelve centres, [n d] float32."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(12, d, generator=generator)
    members = torch.randint(0, 12, (n,), generator=generator)
    return centres[members] + 0.25 * torch.randn(n, d, generator=generator)


def independent_tokens(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Return n independent normal tokens, [n d] float32."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


KINDS = {
    "image-like": image_like_tokens,
    "clustered": clustered_tokens,
    "independent": independent_tokens,
}


def made_signals(n: int, grid: tuple[int, int], *, features: int, words: int) -> Signals:
    """Return made side information about n tokens: everything that some method asks for.

    Args:
        n: tokens.
        grid: rows and columns.
        features: channels of the vision tower, with heads of 64.
        words: channels of the language model.
    """
    g = torch.Generator().manual_seed(1)
    heads = features // 64

    def again(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows * columns, words)

    made: dict[str, Any] = {
        "cls_attention": torch.randn(heads, n, generator=g).softmax(1),
        "encoder_keys": image_like_tokens(n, features, seed=1),
        "final_cls_attention": torch.randn(n, generator=g).softmax(0),
        "final_keys": image_like_tokens(n, features, seed=2),
        "features": image_like_tokens(n, features, seed=3),
        "cls_features": torch.randn(1, features, generator=g),
        "clip_patches": image_like_tokens(n, 768, seed=4),
        "clip_text": torch.randn(1, 768, generator=g),
        "text_embeddings": torch.randn(20, words, generator=g),
        "question": "What is the colour of the bus on the left?",
        "embed_words": lambda found: torch.randn(len(found), words),
        "encode_at": again,
    }
    # A generator of its own: a new signal changes no value above. One tile has no tile numbers.
    more = torch.Generator().manual_seed(2)
    for name in TOKEN_AXIS:
        if name not in made and name != "tiles":
            made[name] = torch.randn(signal_shape(name, n, features), generator=more)
    return Signals(grid=grid, image_id=0, **made)


def median_ms(calls: list[Callable[[], object]], repeats: int, device: str) -> list[float]:
    """Return the median milliseconds of each call; calls take turns, one warm-up each."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, spent in zip(calls, times, strict=True):
            wait()
            start = time.perf_counter()
            call()
            wait()
            spent.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(spent) for spent in times]


def added_peak_mib(call: Callable[[], object], device: str) -> float:
    """Return the peak memory in MiB that a call adds to what is held before it."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Hand freed memory back, or the call would reuse it unseen.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    # Linux: 5 resets the high-water mark of resident memory to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    before = _high_water_kib()
    call()
    return (_high_water_kib() - before) / 1024


def _high_water_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def markdown(rows: list[dict]) -> str:
    """Return rows as a Markdown table."""

    def text(value: object) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(text(row[column]) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def write_tables(
    path: Path, title: str, origin: dict[str, str], tables: dict[str, list[dict]], notes: list[str]
) -> str:
    """Write tables by their titles to ``path``.md and ``path``.json; return the page.

    The page opens with where the numbers come from and ends with the notes.
    """
    lines = [f"# {title} on {origin['hardware']}", ""]
    lines += [f"{name}: `{value}`  " for name, value in origin.items()]
    for heading, rows in tables.items():
        lines += ["", f"## {heading}", "", markdown(rows)]
    lines += ["", *notes, ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    page = "\n".join(lines)
    path.with_suffix(".md").write_text(page)
    content = {"origin": origin, "tables": tables}
    path.with_suffix(".json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return page
