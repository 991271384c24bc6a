"""The compiled loops against torch, which is their oracle."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import features, real_tokens, signals_for, token_matrices
from otprune import make_pruner
from otprune.compiled import loops_for, without_loops
from otprune.kernels import unit_rows
from otprune.layer_pruners.tops import token_set
from otprune.selectors.cdpruner import conditional_picks

if loops_for(torch.empty(0)) is None:
    pytest.skip("the loops cannot be built here", allow_module_level=True)

METHODS = ["otprune", "dpp", "divprune", "cdpruner", "w2greedy"]


def both(rank):
    with without_loops():
        expected = rank()
    return rank().tolist(), expected.tolist()


def test_the_loops_are_for_float32_and_float64_on_a_cpu():
    assert loops_for(torch.empty(0, dtype=torch.float64)) is not None
    assert loops_for(torch.empty(0, dtype=torch.bfloat16)) is None
    assert loops_for(torch.empty(0, device="meta")) is None
    with without_loops():
        assert loops_for(torch.empty(0)) is None
        with without_loops():
            pass
        assert loops_for(torch.empty(0)) is None
    assert loops_for(torch.empty(0)) is not None


def test_views_are_refused():
    loops = loops_for(torch.empty(0))
    with pytest.raises(ValueError, match="contiguous tensors on the CPU"):
        loops.max_min_picks(torch.eye(4)[:, ::2], 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("photo", ["astronaut", "chelsea", "coffee", "rocket"])
def test_picks_on_photos_are_those_of_torch(method, photo):
    tokens, pruner = real_tokens()[photo], make_pruner(method)
    signals = signals_for(pruner, tokens, grid=(24, 24))
    ours, torchs = both(lambda: pruner.rank(tokens, 115, signals))
    assert ours == torchs


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["lowrank", "cluster", "outlier", "smooth"])
@pytest.mark.parametrize(("n", "d", "k"), [(100, 48, 40), (700, 96, 68), (1700, 64, 60)])
def test_picks_on_image_like_tokens_are_those_of_torch(method, kind, n, d, k):
    settings = {"accumulate": "float64"} if method in ("otprune", "dpp", "divprune") else {}
    tokens, pruner = torch.tensor(features(kind, n, d, 3)), make_pruner(method, **settings)
    signals = signals_for(pruner, tokens)
    ours, torchs = both(lambda: pruner.rank(tokens, k, signals))
    assert ours == torchs


@pytest.mark.parametrize("method", METHODS)
@given(tokens=token_matrices(max_n=40), data=st.data())
def test_what_is_picked_is_worth_as_much_as_what_torch_picks(method, tokens, data):
    # Near-ties may go either way; then all picks together still have the same value.
    k = data.draw(st.integers(1, len(tokens)))
    pruner = make_pruner(method)
    signals = signals_for(pruner, tokens)
    ours, torchs = both(lambda: pruner.rank(tokens, k, signals))
    assert len(set(ours)) == k
    if ours != torchs and method == "divprune":
        units = unit_rows(tokens.double())
        nearest = [nearest_picks(units @ units.T, order) for order in (ours, torchs)]
        assert nearest[0] == pytest.approx(nearest[1], abs=2e-6)


def nearest_picks(gram, order):
    """The distance of each pick after the first to the picks before it."""
    return [float((1 - gram[j, order[:t]]).min()) for t, j in enumerate(order) if t]


# Not w2greedy: equal tokens have equal gains only if torch's sums take them in equal order.
@pytest.mark.parametrize("method", [name for name in METHODS if name != "w2greedy"])
@given(n=st.integers(1, 9), d=st.integers(1, 5), copies=st.integers(1, 70), zeros=st.integers(0, 3))
@settings(max_examples=25)
def test_duplicates_and_zeros_go_by_position_as_in_torch(method, n, d, copies, zeros):
    # Entries of few bits, so that no sum is rounded and ties are exact.
    tokens = torch.zeros(n, d)
    for i in range(n):
        tokens[i, i % d] = 1.0
    tokens = torch.cat([tokens.repeat(copies, 1), torch.zeros(zeros, d)])
    pruner = make_pruner(method)
    signals = signals_for(pruner, tokens)
    if method == "cdpruner":
        one = torch.ones(len(tokens))
        ours, torchs = both(lambda: conditional_picks(tokens, one, len(tokens)))
    else:
        ours, torchs = both(lambda: pruner.rank(tokens, len(tokens), signals))
    assert ours == torchs
    assert sorted(ours) == list(range(len(tokens)))


@pytest.mark.parametrize("normalise", ["mean", "minmax"])
@pytest.mark.parametrize(("alpha", "lam"), [(0.5, 0.5), (0.0, 1.0), (2.0, 0.3)])
@pytest.mark.parametrize("photo", ["astronaut", "rocket"])
def test_token_sets_of_photos_are_those_of_torch(normalise, alpha, lam, photo):
    tokens = real_tokens()[photo]
    relevance = torch.rand(len(tokens), generator=torch.Generator().manual_seed(4)) ** 3
    ours, torchs = both(lambda: token_set(tokens, relevance, 256, alpha, lam, normalise))
    assert ours == torchs


@given(
    n=st.integers(1, 9),
    copies=st.integers(1, 30),
    zeros=st.integers(0, 3),
    normalise=st.sampled_from(["mean", "minmax"]),
    relevance=st.sampled_from([0.0, 1.0]),
)
def test_token_sets_of_duplicates_are_those_of_torch(n, copies, zeros, normalise, relevance):
    # What is covered entirely counts 0 to the last bit, or its rounding would be normalised.
    tokens = torch.cat([torch.eye(n).repeat(copies, 1), torch.zeros(zeros, n)])
    worth = torch.full((len(tokens),), relevance)
    ours, torchs = both(lambda: token_set(tokens, worth, len(tokens), 0.5, 0.5, normalise))
    assert ours == torchs


@pytest.mark.parametrize("n", [1, 2, 15, 31, 32, 33, 64, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_length_has_its_ends(n, dtype):
    # Vector registers hold 4 to 16 numbers: what is left over is handled one by one.
    generator = torch.Generator().manual_seed(n)
    tokens = torch.randn(n, 7, generator=generator, dtype=dtype) + 0.5
    for method in ("otprune", "dpp", "divprune"):
        pruner = make_pruner(method, accumulate=str(dtype).removeprefix("torch."))
        ours, torchs = both(lambda p=pruner: p.rank(tokens, max(1, n // 2)))
        assert ours == torchs, method


@pytest.mark.parametrize("method", [*METHODS])
def test_a_smaller_budget_is_a_prefix(method):
    tokens, pruner = real_tokens()["coffee"], make_pruner(method)
    signals = signals_for(pruner, tokens, grid=(24, 24))
    longest = pruner.rank(tokens, 80, signals).tolist()
    for k in (1, 2, 33):
        assert pruner.rank(tokens, k, signals).tolist() == longest[:k]
