"""Write tests/data/golden.json: what every method keeps of one photo's tokens.

    .venv/bin/python scripts/make_golden.py

Run it after a deliberate change of a method, and read the difference: every line that changes means
that results change. float64 where a method offers it, so that rounding of different
machines does not move a pick. Signals and what surrounds the tokens in a prompt are made up, the
same every time.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from otprune import BUILT_IN, LayerPruner, Merger, Selector, make_pruner

TESTS = Path(__file__).parent.parent / "tests"
DATA = TESTS / "data"
PHOTO, K = "astronaut/9", 56


def golden_pruner(name: str) -> Any:
    """Return the method with its defaults, in float64 where it can."""
    settings = {field.name for field in dataclasses.fields(BUILT_IN[name])}
    return make_pruner(name, **({"accumulate": "float64"} if "accumulate" in settings else {}))


def golden_answer(name: str) -> list[int]:
    """Return what the method makes of the photo.

    Picks in picking order of a selector; of a merger the places of the new tokens, then for each
    old token the number of the new one in which it weighs most (-1 if in none); of a layer pruner
    what stays at the first layer inside the language model, ascending.
    """
    from helpers import signals_for

    pruner = golden_pruner(name)
    tokens = load_file(DATA / "real_tokens.safetensors")[PHOTO].float()
    signals = signals_for(pruner, tokens, grid=(24, 24), image_id=None)
    if isinstance(pruner, Selector):
        return pruner.rank(tokens, K, signals).tolist()
    if isinstance(pruner, Merger):
        mixture = pruner.merge(tokens, K, signals=signals)
        if mixture.weights is None:
            return mixture.places.tolist()
        most, source = mixture.weights.max(0)
        return [*mixture.places.tolist(), *source.masked_fill(most <= 0, -1).tolist()]
    return _left(pruner, tokens)


def _left(pruner: LayerPruner, tokens: torch.Tensor) -> list[int]:
    """Return what stays of the tokens at the schedule's first layer inside the language model."""
    from helpers import drawn
    from layer_pruners.views import make_view

    n, d = tokens.shape
    point = next(point for point in pruner.points if point.layer)
    view = make_view(layer=point.layer, visual=n, hidden=d, numbers=torch.arange(n))
    view.hidden[view.visual] = tokens
    if pruner.observes:
        view = dataclasses.replace(view, accumulated=drawn("seen", len(view.hidden)).abs())
    if pruner.starts:
        view = dataclasses.replace(view, started=pruner.start(view))
    k = K if point.amount else 0
    return pruner.prune(view, k).index.sort().values.tolist()


def golden() -> dict[str, list[int]]:
    """Return the answers by method."""
    return {name: golden_answer(name) for name in sorted(BUILT_IN)}


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    rows = ",\n".join(f"  {json.dumps(name)}: {picks}" for name, picks in golden().items())
    (DATA / "golden.json").write_text(f"{{\n{rows}\n}}\n")
