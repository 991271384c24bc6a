"""What surrounds a call changes nothing of what a method answers: every method, bit for bit."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch

from helpers import drawn, signals_for
from layer_pruners.views import make_view
from otprune import PRUNERS, LayerPruner, Merger, Selector, make_pruner
from otprune.merger import mixed

VARIANTS = [
    pytest.param(name, preset, id=name if preset is None else f"{name}-{preset}")
    for name in sorted(PRUNERS)
    for preset in (None, *PRUNERS[name].presets)
]


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic():
    """Also fills memory that nobody has written with NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager]] = {
    "autocast bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "default float64": lambda: default_dtype(torch.float64),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "inference mode": torch.inference_mode,
    "gradients": torch.enable_grad,
    "deterministic": deterministic,
    "another device": lambda: torch.device("meta"),
}


def strided(value):
    """The same values, not next to each other in memory."""
    if not isinstance(value, torch.Tensor) or value.ndim < 1:
        return value
    return torch.stack([value, value.roll(1, 0)], dim=-1)[..., 0]


def transposed(value):
    """The same values, columns first in memory."""
    matrix = isinstance(value, torch.Tensor) and value.ndim > 1
    return value.transpose(-1, -2).contiguous().transpose(-1, -2) if matrix else value


def with_gradient(value):
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.detach().clone().requires_grad_() if floating else value


def changed(how, record):
    """A dataclass with ``how`` applied to its tensors."""
    if record is None or not dataclasses.is_dataclass(record):
        return record
    fields = {one.name: getattr(record, one.name) for one in dataclasses.fields(record)}
    return dataclasses.replace(record, **{name: how(value) for name, value in fields.items()})


def question(name, preset, how=lambda value: value):
    """A method's own call on made-up inputs, ready to be asked again and again."""
    pruner = make_pruner(name, preset=preset)
    if isinstance(pruner, LayerPruner):
        return layer_question(pruner, how)
    # Of a size at which a matrix product rounds by how its factors lie in memory.
    side = 16 if isinstance(pruner, Selector) else 6
    tokens = torch.randn(side * side, 10 * side, generator=torch.Generator().manual_seed(4))
    signals = changed(how, signals_for(pruner, tokens, grid=(side, side)))
    given = how(tokens)
    if isinstance(pruner, Selector):
        batch = [given, how(tokens[:25]), how(tokens.bfloat16())]
        grids = [(side, side), (5, 5), (side, side)]
        many = [
            changed(how, signals_for(pruner, one.detach(), grid=grid))
            for one, grid in zip(batch, grids, strict=True)
        ]
        return lambda: [
            pruner.rank(given, 16, signals),
            pruner.select(given, 16, signals=signals),
            *pruner.select_batch(batch, 9, signals=many),
        ]
    assert isinstance(pruner, Merger)
    vectors = how(drawn("vectors", 80, 3)).detach()  # a mixture of these has a gradient

    def merge():
        found = pruner.merge(given, 16, signals=signals)
        whole = None
        if found.weights is not None:
            whole = mixed(found, vectors[: found.weights.shape[1]])
        return [found.places, found.weights, found.tokens, whole]

    return merge


def layer_question(pruner, how):
    calls = []
    for point in pruner.points:
        if not point.layer:
            continue
        view = make_view(layer=point.layer, n=24)
        if pruner.observes:
            view = dataclasses.replace(view, accumulated=drawn("seen", len(view.hidden)).abs())
        if pruner.starts:
            first = changed(how, make_view(layer=0, visual=view.n, seed=1))
            view = dataclasses.replace(view, started=pruner.start(first))
        if pruner.needs:
            known = changed(how, signals_for(pruner, view.hidden[view.visual], grid=None))
            view = dataclasses.replace(view, signals=known)
        k = 7 if any(one.amount for one in pruner.points) else 0
        calls.append((changed(how, view), k))

    def prune():
        found = []
        for view, k in calls:
            kept = pruner.prune(view, k)
            found += [kept.index, kept.merged, kept.scores]
        return found

    return prune


def check_same(found, want):
    for a, b in zip(found, want, strict=True):
        assert a is b is None or torch.equal(a, b)
        assert a is None or a.dtype == b.dtype
        assert a is None or not a.requires_grad


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_no_surrounding_changes_an_answer(name, preset):
    ask = question(name, preset)
    want = ask()
    for surrounding in SURROUNDINGS.values():
        with surrounding():
            found = ask()
        check_same(found, want)


@pytest.mark.parametrize("how", [strided, transposed, with_gradient])
@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_no_form_of_the_inputs_changes_an_answer(name, preset, how):
    check_same(question(name, preset, how)(), question(name, preset)())
