"""Features, cases and plain implementations that several tests compare with."""

import hashlib
import itertools
import json
import math
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

DATA = Path(__file__).parent / "data"


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
