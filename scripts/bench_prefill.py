"""What a method costs, alone and beside the prefill that it saves: tables of `bench_selection.py`.

Kept apart from it since it loads a model. Random weights and made signals: times do not depend on
what they mean.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from bench_common import image_like_tokens, made_signals, median_ms
from bench_model import TEXT, Case, fits, random_model, request
from otprune import PRUNERS, LayerPruner, Merger, Selector, Signals, make_pruner, resolve_budget
from otprune.cost import VICUNA_7B, DecoderShape
from otprune.merger import mixed
from otprune.pruning import Pruning, Trace, make_pruning
from otprune.pruning.image_tokens import ImageTokens
from otprune.signals import TEXT_SIGNALS, TOKEN_AXIS

KEPT = 192
"""Of 576 tokens: the most of the literature's budgets, which every schedule's layers can reach."""

_TOWER = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "image_size": 336,
    "patch_size": 14,
}
# As many layers as the schedules are made for.
_SMALL = DecoderShape(hidden=512, feed_forward=1376, layers=32, heads=8)
CASES = {
    "cpu": Case("110M, 32 layers", _SMALL, 576, 1, (1,), _TOWER),
    "cuda": Case("LLaVA-1.5-7B", VICUNA_7B, 576, 1, (1,)),
}


def _answer(method: Selector | Merger, tokens: torch.Tensor, k: int, signals: Signals) -> object:
    """What a selector or a merger does to an image, the mixing included but not the projector."""
    if not isinstance(method, Merger):
        return method.rank(tokens, k, signals)
    mixture = method.merge(tokens, k, signals=signals)
    if mixture.weights is None:
        return mixture
    if method.space == "tokens":
        return mixed(mixture, tokens)
    parts = [signals.features, signals.cls_features if "cls_features" in method.needs else None]
    return mixed(mixture, torch.cat([part for part in parts if part is not None]))


def methods_table(device: str, repeats: int, ratio: float) -> list[dict]:
    """Milliseconds of every method before the language model, at its defaults."""
    rows = []
    for name, method in PRUNERS.items():
        if issubclass(method, LayerPruner):
            continue
        row: dict = {"method": name}
        for n, grid in ((576, (24, 24)), (2340, (45, 52))):
            tokens = image_like_tokens(n, 1024).to(device)
            signals = made_signals(n, grid, features=1024, words=1024).to(torch.device(device))
            k, pruner = resolve_budget(n, keep_ratio=ratio), make_pruner(name)
            row[f"n = {n} ms"] = median_ms(
                [lambda p=pruner, v=tokens, c=k, s=signals: _answer(p, v, c, s)], repeats, device
            )[0]
        rows.append(row)
    return rows


class _MadeText:
    """Stands in for the tokenizer and CLIP's text tower."""

    def __init__(self, signals: Signals, hidden: int) -> None:
        self.signals, self.hidden = signals, hidden

    def check(self, *asked: object) -> None:
        """Nothing to check."""

    def question(self, ids: torch.Tensor) -> str:
        """Return always the same question."""
        return self.signals.question or ""

    def clip_text(self, question: str) -> torch.Tensor | None:
        """Return the made text."""
        return self.signals.clip_text

    def embed_words(self, words: Any, embed: Any) -> torch.Tensor:
        """Return made embeddings."""
        return torch.randn(len(words), self.hidden, device=embed.weight.device)


class _Watch:
    """Adds up the milliseconds of all that chooses or merges tokens."""

    def __init__(self, device: str) -> None:
        self.device, self.spent = device, 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.spent += (time.perf_counter() - start) * 1e3

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


@dataclass
class _Setting:
    """A method and its times in milliseconds, one of each run."""

    name: str
    pruning: Pruning | None
    selection: list[float]
    prefill: list[float]
    lengths: list[int]


def settings() -> list[_Setting]:
    """Return every method at `KEPT` tokens, and none at all."""
    found = [_Setting("unpruned", None, [], [], [])]
    found += [_Setting(name, make_pruning(name, k=KEPT), [], [], []) for name in PRUNERS]
    return found


def kind(name: str) -> str:
    """Return what kind of method a name is."""
    method = PRUNERS[name]
    if issubclass(method, LayerPruner):
        return "inside"
    return "merger" if issubclass(method, Merger) else "selector"


def _image(image: ImageTokens, case: Case, hidden: int) -> tuple[ImageTokens, Signals]:
    """The image with made signals, and all of them."""
    side = int(case.visual**0.5)
    made = made_signals(case.visual, (side, side), features=hidden, words=case.shape.hidden)
    made = made.to(image.tokens.device)
    kept: dict[str, Any] = {name: None for name in TEXT_SIGNALS}
    dtype = image.tokens.dtype
    for name in (*TOKEN_AXIS, "cls_features"):
        value = getattr(made, name)
        kept[name] = value if value is None or name == "tiles" else value.to(dtype)
    known = replace(made, **kept)
    return replace(image, signals=known), made


def _once(model: Any, asked: dict[str, Any], one: _Setting, device: str) -> tuple[float, float]:
    """Milliseconds of the choice and of the whole prefill."""
    watch = _Watch(device)
    trace = Trace(watch=watch)
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    model(**asked, pruning=one.pruning, trace=trace, logits_to_keep=1, use_cache=True)
    if device == "cuda":
        torch.cuda.synchronize()
    one.lengths = [row[0] for row in trace.lengths]
    return watch.spent, (time.perf_counter() - start) * 1e3


def _row(one: _Setting, unpruned: float) -> dict:
    whole, chosen = median(one.prefill), median(one.selection)
    return {
        "method": one.name,
        "kind": kind(one.name),
        "visual tokens a layer": sum(one.lengths) / len(one.lengths) - TEXT,
        "selection ms": chosen,
        "prefill ms": whole,
        "prefill saved": 1 - whole / unpruned,
        "selection, of what it saves": chosen / (unpruned - whole + chosen),
    }


@torch.inference_mode()
def prefill_table(device: str, repeats: int) -> list[dict]:
    """Prefill with every method, selection included and also by itself; settings take turns."""
    case = CASES[device]
    if not fits(case, device):
        return [{"model": case.name, "result": "not run: too little GPU memory"}]
    model = random_model(case, device, torch.float32 if device == "cpu" else torch.float16)
    asked = request(case, 1, device, model.dtype)
    hidden = case.tower["hidden_size"] if case.tower else 1024
    image, made = _image(asked["visual"][0], case, hidden)
    asked["visual"] = [image]
    model.text_tools = _MadeText(made, case.shape.hidden)
    chosen = settings()
    for turn in range(repeats + 1):
        for one in chosen:
            spent, whole = _once(model, asked, one, device)
            if turn:  # the first is to warm up
                one.selection.append(spent)
                one.prefill.append(whole)
    unpruned = median(chosen[0].prefill)
    rows = [_row(one, unpruned) for one in chosen[1:]]
    for row in rows:
        print(row, file=sys.stderr)
    return [
        {
            "method": f"unpruned ({case.name})",
            "kind": "-",
            "visual tokens a layer": float(case.visual),
            "selection ms": 0.0,
            "prefill ms": unpruned,
            "prefill saved": 0.0,
            "selection, of what it saves": "-",
        },
        *rows,
    ]
