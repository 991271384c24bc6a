import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import best_subset, brute_greedy, features, real_tokens, signals_for, token_matrices
from otprune import make_pruner
from otprune.kernels import unit_rows
from otprune.registry import SELECTORS
from otprune.selectors.w2greedy import _STEP, _quadrature
from otprune.wasserstein import gaussian_w2


def cross_term(tokens: torch.Tensor):
    """F(C) = sum of the square roots of the eigenvalues of (U U^T)^2 on C."""
    units = unit_rows(tokens.double())
    moments = (units @ units.T) @ (units @ units.T)

    def value(subset):
        index = torch.as_tensor(list(subset))
        eigenvalues = torch.linalg.eigvalsh(moments[index][:, index])
        return eigenvalues.clamp(min=0).sqrt().sum().item()

    return value


@given(tokens=token_matrices(max_n=7, min_n=2, max_d=8), data=st.data())
def test_the_value_is_that_of_greedy_on_exact_eigenvalues(tokens, data):
    k = data.draw(st.integers(1, len(tokens)))
    value = cross_term(tokens)
    picks = make_pruner("w2greedy").rank(tokens, k).tolist()
    greedy = value(brute_greedy(value, len(tokens), k))
    assert value(picks) >= greedy * (1 - 2e-3)


@given(tokens=token_matrices(max_n=7, min_n=2, max_d=8), data=st.data())
def test_the_value_is_at_least_the_greedy_share_of_the_optimum(tokens, data):
    k = data.draw(st.integers(1, len(tokens)))
    value = cross_term(tokens)
    picks = make_pruner("w2greedy").rank(tokens, k).tolist()
    assert value(picks) >= (1 - 1 / math.e) * best_subset(value, len(tokens), k)


@given(tokens=token_matrices(max_n=6, min_n=3, max_d=6))
@settings(max_examples=25)
def test_the_cross_term_is_monotone_and_submodular(tokens):
    # The derivation's third step, on every pair of nested subsets and every further token.
    value = cross_term(tokens)
    n = len(tokens)
    table = {(): 0.0}
    for size in range(1, n + 1):
        for subset in itertools.combinations(range(n), size):
            table[subset] = value(subset)
    for small in table:
        for i in set(range(n)) - set(small):
            gain = table[tuple(sorted((*small, i)))] - table[small]
            assert gain >= -1e-9
            for j in set(range(n)) - set(small) - {i}:
                larger = tuple(sorted((*small, j)))
                later = table[tuple(sorted((*larger, i)))] - table[larger]
                assert later <= gain + 1e-9


def test_the_cross_term_is_all_that_the_distance_depends_on():
    # tr S = tr S_C = 1 on unit-norm tokens: W2^2 = 2 - 2 F(C) / sqrt(n k).
    tokens = unit_rows(real_tokens()["rocket"].double())
    value = cross_term(tokens)
    for name in ("random", "w2greedy", "divprune"):
        kept = make_pruner(name).select(tokens, 40)
        expected = math.sqrt(2 - 2 * value(kept.tolist()) / math.sqrt(len(tokens) * 40))
        found = gaussian_w2(tokens, kept, centred=False)
        assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("photo", ["astronaut", "chelsea", "coffee", "rocket"])
def test_no_other_method_comes_as_near_in_the_distance_that_it_lowers(photo):
    tokens = unit_rows(real_tokens()[photo])
    distances = {}
    for name in SELECTORS:
        pruner = make_pruner(name)
        kept = pruner.select(tokens, 56, signals=signals_for(pruner, tokens, grid=(24, 24)))
        distances[name] = gaussian_w2(tokens, kept, centred=False)
    assert min(distances, key=distances.__getitem__) == "w2greedy"


@pytest.mark.parametrize("n", [8, 576, 5000])
def test_the_quadrature_is_the_square_root(n):
    # sum_q w_q log(1 + x / node_q) + linear * x = 2 pi / h * sqrt(x) up to a constant (the lower
    # tail), from well above the lowest node to the largest eigenvalue that there can be.
    diagonal = torch.full((n,), 3.0, dtype=torch.float64)
    nodes, weights, linear = _quadrature(diagonal)
    x = torch.logspace(-3, math.log10(3.0 * n), 50, dtype=torch.float64)
    values = (weights[:, None] * torch.log1p(x / nodes[:, None])).sum(0) + linear * x
    roots = values * _STEP / (2 * math.pi)
    error = (roots - roots[0]) - (x.sqrt() - x[0].sqrt())
    assert (error.abs() <= 1e-2 * x.sqrt()).all()


@pytest.mark.parametrize("k", [115, 400])
def test_large_budgets_still_come_nearer_than_chance(k):
    tokens = unit_rows(real_tokens()["rocket"])
    ours = gaussian_w2(tokens, make_pruner("w2greedy").select(tokens, k), centred=False)
    chance = gaussian_w2(tokens, make_pruner("random").select(tokens, k), centred=False)
    assert ours < 0.8 * chance


def test_rows_from_factors_equal_rows_from_the_full_matrix(monkeypatch):
    import otprune.selectors.w2greedy as module

    tokens = torch.tensor(features("smooth", 576, 64, 4))
    pruner = make_pruner("w2greedy")
    full = pruner.rank(tokens, 40).tolist()
    monkeypatch.setattr(module, "_DENSE_UP_TO", 0)
    assert pruner.rank(tokens, 40).tolist() == full
