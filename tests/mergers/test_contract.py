"""What every merger of the registry owes its caller, whatever the method."""

import dataclasses

import pytest
import torch

from helpers import signals_for
from otprune import Merger, make_pruner
from otprune.merger import mixed
from otprune.registry import MERGERS

VARIANTS = [
    pytest.param(name, preset, id=name if preset is None else f"{name}-{preset}")
    for name in sorted(MERGERS)
    for preset in (None, *MERGERS[name].presets)
]
TILES = torch.tensor([0] * 9 + [1, 1, 1, 2, 2, 2, -1] * 3)
"""Three tiles of 3 x 3 as LLaVA-1.6 lays them out: the whole image, then rows with their ends."""


def drawn_tokens(n: int = 36, d: int = 12) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(4))


def merged(pruner: Merger, tokens: torch.Tensor, k: int, **given):
    given = {"grid": (6, 6), **given} if len(tokens) == 36 else given
    return pruner.merge(tokens, k, signals=signals_for(pruner, tokens, **given))


def is_upper_bound(name: str) -> bool:
    return "upper bound" in " ".join(str(MERGERS[name].__doc__).split())


def check(name: str, pruner: Merger, mixture, k: int, n: int, images: int = 1) -> None:
    rows = len(mixture.places)
    assert 1 <= rows <= k if is_upper_bound(name) else rows == k
    assert mixture.places.dtype == torch.int64
    assert mixture.places.min() >= -1
    assert mixture.places.max() < n
    assert (mixture.weights is None) != (mixture.tokens is None)
    if mixture.weights is None:
        assert mixture.tokens.shape[0] == rows
        assert mixture.tokens.isfinite().all()
        return
    columns = n + images if pruner.space == "features" and "cls_features" in pruner.needs else n
    assert mixture.weights.shape == (rows, columns)
    assert mixture.weights.isfinite().all()
    assert (mixture.weights != 0).any(1).all()


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
@pytest.mark.parametrize("k", [1, 2, 5, 16, 35, 36])
def test_k_new_tokens_come_out_or_the_count_is_refused(name, preset, k):
    pruner, tokens = make_pruner(name, preset=preset), drawn_tokens()
    message = None
    try:
        check(name, pruner, merged(pruner, tokens, k), k, 36)
    except ValueError as error:
        message = str(error)
    assert message is None or ("k must" in message and str(k) in message)


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_most_counts_are_possible(name, preset):
    pruner, tokens = make_pruner(name, preset=preset), drawn_tokens()
    for k in (12, 16, 32):
        mixture = merged(pruner, tokens, k)
        check(name, pruner, mixture, k, 36)


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_the_answer_is_the_same_again_and_leaves_what_it_was_given_alone(name, preset):
    tokens = drawn_tokens()
    before = tokens.clone()
    one, other = (merged(make_pruner(name, preset=preset), tokens, 16) for _ in range(2))
    for field in ("places", "weights", "tokens"):
        a, b = getattr(one, field), getattr(other, field)
        assert a is b is None or torch.equal(a, b)
    assert torch.equal(tokens, before)


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_autocast_changes_no_mixture(name, preset):
    pruner, tokens = make_pruner(name, preset=preset), drawn_tokens()
    signals = signals_for(pruner, tokens, grid=(6, 6))
    want = pruner.merge(tokens, 16, signals=signals)
    vectors = None if want.weights is None else torch.randn(want.weights.shape[1], 8)
    whole = None if vectors is None else mixed(want, vectors)
    with torch.autocast("cpu", torch.bfloat16):
        found = pruner.merge(tokens, 16, signals=signals)
        again = None if vectors is None else mixed(found, vectors)
    for a, b in ((want.places, found.places), (want.weights, found.weights), (whole, again)):
        assert a is b is None or torch.equal(a, b)
    assert want.tokens is found.tokens is None or torch.equal(want.tokens, found.tokens)


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_an_image_in_several_tiles_gives_new_tokens_too(name, preset):
    pruner, tokens = make_pruner(name, preset=preset), drawn_tokens(30)
    for k in (12, 15):
        mixture = merged(pruner, tokens, k, tiles=TILES)
        check(name, pruner, mixture, k, 30, images=3)


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
@pytest.mark.parametrize(
    "alike", [torch.ones(36, 12), torch.zeros(36, 12), drawn_tokens().half(), drawn_tokens() * 1e4],
    ids=["all equal", "all zero", "half", "large"],
)  # fmt: skip
def test_awkward_tokens_give_finite_new_ones(name, preset, alike):
    pruner = make_pruner(name, preset=preset)
    signals = signals_for(pruner, alike.float(), grid=(6, 6))
    blank = {
        need: torch.full_like(value, 0.25)
        for need in pruner.needs
        if isinstance(value := getattr(signals, need), torch.Tensor)
    }
    for known in (signals, dataclasses.replace(signals, **blank)):
        check(name, pruner, pruner.merge(alike, 16, signals=known), 16, 36)


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_merging_needs_no_gradient_and_what_comes_out_may_take_part_in_one(name, preset):
    pruner = make_pruner(name, preset=preset)
    tokens = drawn_tokens().requires_grad_()
    mixture = merged(pruner, tokens, 16)
    for part in (mixture.places, mixture.weights, mixture.tokens):
        if part is not None:
            assert not part.requires_grad
            assert not part.is_inference()
    if mixture.weights is not None:
        vectors = torch.ones(mixture.weights.shape[1], 4, requires_grad=True)
        mixed(mixture, vectors).sum().backward()
        assert vectors.grad.isfinite().all()


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_every_signal_that_is_missing_is_named(name, preset):
    pruner, tokens = make_pruner(name, preset=preset), drawn_tokens()
    whole = signals_for(pruner, tokens, grid=(6, 6))
    for need in pruner.needs:
        with pytest.raises(ValueError, match=rf"needs signals\.{need}"):
            pruner.merge(tokens, 16, signals=dataclasses.replace(whole, **{need: None}))


@pytest.mark.parametrize("name", sorted(MERGERS))
@pytest.mark.parametrize(
    ("tokens", "k", "message"),
    [
        (torch.full((4, 3), float("nan")), 2, "tokens must be finite"),
        (torch.ones(4), 2, "tokens must have two axes"),
        (torch.ones(4, 3), 5, r"k must be in 1\.\.n = 1\.\.4, got 5"),
        (torch.ones(4, 3), 0, r"k must be in 1\.\.n = 1\.\.4, got 0"),
        (torch.ones(4, 3), None, "exactly one of keep_ratio and k must be given"),
    ],
)
def test_what_is_no_image_or_no_count_is_refused(name, tokens, k, message):
    pruner = make_pruner(name)
    signals = signals_for(pruner, torch.ones(4, 3), grid=(2, 2))
    with pytest.raises(ValueError, match=message):
        pruner.merge(tokens, k, signals=signals)
