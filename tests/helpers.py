"""Features, cases and plain implementations that several tests compare with."""

import functools
import hashlib
import itertools
import json
import math
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from otprune import Method, Signals
from otprune.signals import TOKEN_AXIS, signal_shape

DATA = Path(__file__).parent / "data"
METHODS = DATA / "parity" / "methods"


def features(kind: str, n: int, d: int, seed: int) -> np.ndarray:
    """Synthetic token features [n d] float32 of the parity cases (numpy's legacy generator)."""
    r = np.random.RandomState(seed)  # noqa: NPY002 (the recorded values were made with it)
    if kind == "lowrank":
        signal = r.randn(n, 24).astype(np.float32) @ r.randn(24, d).astype(np.float32) / 5
        x = signal + 0.3 * r.randn(n, d).astype(np.float32)
    elif kind == "cluster":
        centres = r.randn(12, d).astype(np.float32)
        x = centres[r.randint(0, 12, n)] + 0.25 * r.randn(n, d).astype(np.float32)
    elif kind == "outlier":
        x = 0.5 * r.randn(n, d).astype(np.float32)
        x[:, :3] *= 40
        x[r.randint(0, n, 10)] *= 6
    elif kind == "dup":
        x = r.randn(n // 4, d).astype(np.float32).repeat(4, 0)
    elif kind == "smooth":
        side = math.isqrt(n)
        y, t = np.divmod(np.arange(n), side)
        waves = r.randn(40, 2) * 4 / side
        phases = np.sin(y[:, None] * waves[:, 0] + t[:, None] * waves[:, 1] + r.rand(40) * 6.28)
        x = phases @ r.randn(40, d) / 3 + 0.15 * r.randn(n, d) + r.randn(d)
    else:
        raise ValueError(kind)
    return np.ascontiguousarray(x, dtype=np.float32)


def sha1(x: np.ndarray) -> str:
    return hashlib.sha1(x.tobytes()).hexdigest()


def recorded(name: str) -> list[dict]:
    """Entries of a file of parity values."""
    return json.loads((DATA / "parity" / f"{name}.json").read_text())


def tiny_model_tokens() -> dict[str, torch.Tensor]:
    return load_file(DATA / "parity" / "tiny_models.safetensors")


def real_tokens() -> dict[str, torch.Tensor]:
    """Patch tokens [576 384] of four photos, float32."""
    stored = load_file(DATA / "real_tokens.safetensors")
    return {name.split("/")[0]: tokens.float() for name, tokens in stored.items()}


def first_difference(a: list[int], b: list[int]) -> int | None:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), None)


def otprune_kernel(tokens: torch.Tensor, gamma: float = 0.01) -> torch.Tensor:
    """K = I + gamma (V V^T)^2 of unit-norm columns, in float64, formed in full."""
    v = tokens.double()
    v = v / v.norm(dim=0, keepdim=True)
    similarity = v @ v.T
    return torch.eye(len(v), dtype=torch.float64) + gamma * similarity @ similarity


def logdet(kernel: torch.Tensor, subset) -> float:
    index = torch.as_tensor(list(subset))
    return torch.linalg.slogdet(kernel[index][:, index]).logabsdet.item()


def best_subset(value, n: int, k: int) -> float:
    """Largest value over all subsets of k out of n."""
    return max(value(subset) for subset in itertools.combinations(range(n), k))


def brute_greedy(value, n: int, k: int) -> list[int]:
    """Greedy maximisation by evaluating the set function itself; ties to the lower index."""
    picks: list[int] = []
    for _ in range(k):
        rest = [i for i in range(n) if i not in picks]
        values = [value([*picks, i]) for i in rest]
        picks.append(rest[int(np.argmax(values))])
    return picks


@st.composite
def token_matrices(draw, max_n: int = 40, max_d: int = 24, min_n: int = 1):
    """Random token matrices [n d] without exact ties, of several characters."""
    n = draw(st.integers(min_n, max_n))
    d = draw(st.integers(1, max_d))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    tokens = torch.randn(n, d, generator=generator)
    offset = draw(st.sampled_from([0.0, 1.0, 5.0]))
    spread = draw(st.sampled_from([0.0, 1.0]))
    tokens = tokens * torch.exp(spread * torch.randn(n, 1, generator=generator)) + offset
    return tokens * draw(st.sampled_from([1e-3, 1.0, 1e3]))


class HostReads(TorchDispatchMode):
    """Counts operations that move a value from the device to the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "item"):
            self.count += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting():
    """Within it, waiting for a GPU is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the debug mode announces itself as a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def method_runs(method: str) -> list[tuple[str, dict]]:
    """Stored cases of a method and their runs: (name of the case, settings and margins)."""
    runs = []
    for file in sorted(METHODS.glob(f"{method}__*.npz")):
        case = file.stem.partition("__")[2]
        runs += [(case, run) for run in method_case(method, case)["meta"]["runs"]]
    return runs


@functools.cache
def method_case(method: str, case: str) -> dict:
    """Inputs and outputs of a stored case, its ``meta`` decoded."""
    with np.load(METHODS / f"{method}__{case}.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    return {**arrays, "meta": json.loads(str(arrays["meta"]))}


def tower_signals(stored: dict) -> Signals:
    """What the stored tower outputs say of the patches, tile after tile, without the CLS token."""
    attention = torch.tensor(stored["cls_attention"])[:, :, 1:]
    tiles, _, n = attention.shape
    known: dict = {"cls_attention": attention.transpose(0, 1).flatten(1)}
    if "hidden" in stored:
        known["features"] = torch.tensor(stored["hidden"])[:, 1:].flatten(0, 1)
    if tiles > 1:
        known["tiles"] = torch.arange(tiles).repeat_interleave(n)
    return Signals(**known)


def by_tile(picks: torch.Tensor, n: int, tiles: int) -> list[list[int]]:
    """Pick order of each tile, numbered within it."""
    return [[i - t * n for i in picks.tolist() if i // n == t] for t in range(tiles)]


def drawn(name: str, *size: int) -> torch.Tensor:
    """Normal numbers that depend on a name and a size alone."""
    seed = int.from_bytes(hashlib.sha256(f"{name} {size}".encode()).digest()[:4], "little")
    r = np.random.RandomState(seed)  # noqa: NPY002 (its numbers never change)
    return torch.tensor(r.standard_normal(size), dtype=torch.float32)


def known_signals(tokens: torch.Tensor, tiles: torch.Tensor | None = None) -> dict:
    """A value for every signal but tile numbers, by name: made up, the same every time."""
    n, d = tokens.shape
    images = 1 if tiles is None else int(tiles.max()) + 1

    def embed_words(words):
        # As many pieces as a tokenizer might make of a word.
        pieces = [f"{word}{i}" for word in words for i in range(1 + len(word) // 7)]
        return torch.cat([drawn(piece, 1, d) for piece in pieces]).to(tokens.device)

    made = {
        "cls_attention": drawn("attention", 4, n + 1).softmax(1)[:, 1:],
        "encoder_keys": drawn("keys", n, 16),
        "features": drawn("features", n, 12) + drawn("mean feature", 12),
        "cls_features": drawn("cls", images, 12),
        "padding": torch.arange(n) % 5 == 4,
        "final_cls_attention": drawn("final attention", n + 1).mul(2).softmax(0)[1:],
        "final_keys": drawn("final keys", n, 16),
        "clip_patches": drawn("patches", n, 2 * n),
        "clip_text": drawn("text", 2, 2 * n),
        "text_embeddings": drawn("question", 7, d),
    }
    for name in TOKEN_AXIS:
        if name not in made and name != "tiles":
            made[name] = drawn(name, *signal_shape(name, n, 16))
    made = {name: value.to(tokens.device) for name, value in made.items()}
    return {
        **made,
        "question": "What colour is the small dog next to the wooden bench?",
        "embed_words": embed_words,
        "encode_at": lambda rows, columns: drawn("small", rows * columns, d).to(tokens.device),
    }


def signals_for(method: Method, tokens: torch.Tensor, **given) -> Signals:
    """Made-up signals: what the method needs, a grid of one row, and what is ``given``."""
    known = known_signals(tokens, given.get("tiles"))
    grid = (1, len(tokens)) if given.get("tiles") is None else None
    base = {"grid": grid, "image_id": 7}
    return Signals(**{**base, **{need: known[need] for need in method.needs}, **given})
