import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import best_subset, brute_greedy, features, real_tokens, token_matrices
from otprune import PRUNERS, make_pruner
from otprune.kernels import unit_rows
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
    picks = make_pruner("w2greedy", accumulate="float64").rank(tokens, k).tolist()
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
    distances = {
        name: gaussian_w2(tokens, make_pruner(name).select(tokens, 56), centred=False)
        for name in PRUNERS
    }
    assert min(distances, key=distances.__getitem__) == "w2greedy"


@pytest.mark.parametrize("kind", ["smooth", "cluster", "outlier"])
def test_float32_reaches_what_float64_reaches(kind):
    tokens = torch.tensor(features(kind, 576, 128, 2))
    value = cross_term(tokens)
    single = value(make_pruner("w2greedy").rank(tokens, 56).tolist())
    double = value(make_pruner("w2greedy", accumulate="float64").rank(tokens, 56).tolist())
    assert single >= double * (1 - 1e-3)


def test_rows_from_factors_equal_rows_from_the_full_matrix(monkeypatch):
    import otprune.pruners.w2greedy as module

    tokens = torch.tensor(features("smooth", 576, 64, 4))
    pruner = make_pruner("w2greedy", accumulate="float64")
    full = pruner.rank(tokens, 40).tolist()
    monkeypatch.setattr(module, "_DENSE_UP_TO", 0)
    assert pruner.rank(tokens, 40).tolist() == full
