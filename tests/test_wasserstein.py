import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import real_tokens, token_matrices
from otprune.wasserstein import coverage, effective_rank, exact_w2, gaussian_w2


def root(matrix: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T


def bures(tokens: torch.Tensor, kept: torch.Tensor, centred: bool) -> float:
    """Gaussian W2 from the covariances themselves, by matrix square roots."""
    x, y = tokens.double(), tokens.double()[kept]
    mx, my = (x.mean(0), y.mean(0)) if centred else (0, 0)
    sx, sy = (x - mx).T @ (x - mx) / len(x), (y - my).T @ (y - my) / len(y)
    cross = root(root(sx) @ sy @ root(sx)).trace()
    shift = (mx - my).square().sum() if centred else 0
    return float(shift + sx.trace() + sy.trace() - 2 * cross)


@st.composite
def tokens_and_kept(draw):
    tokens = draw(token_matrices(max_n=12, max_d=6, min_n=2))
    tokens = tokens / tokens.abs().max()
    kept = draw(st.lists(st.integers(0, len(tokens) - 1), unique=True, min_size=1))
    return tokens, torch.tensor(kept)


@pytest.mark.parametrize("centred", [True, False])
@given(case=tokens_and_kept())
def test_the_gaussian_distance_equals_the_formula_with_matrix_roots(centred, case):
    tokens, kept = case
    squared = bures(tokens, kept, centred)
    assert gaussian_w2(tokens, kept, centred=centred) ** 2 == pytest.approx(squared, abs=1e-6)


def test_the_gaussian_distance_of_one_channel_is_its_closed_form():
    tokens = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
    kept = torch.tensor([0, 1])
    # Means 3 and 1, deviations sqrt(5) and 1: W2^2 = (3 - 1)^2 + (sqrt(5) - 1)^2.
    assert gaussian_w2(tokens, kept) ** 2 == pytest.approx(4 + (math.sqrt(5) - 1) ** 2)
    # Root mean squares sqrt(14) and sqrt(2) about zero.
    expected = math.sqrt(14) - math.sqrt(2)
    assert gaussian_w2(tokens, kept, centred=False) == pytest.approx(expected)


def test_the_gaussian_distance_agrees_with_pot():
    import ot

    tokens = real_tokens()["astronaut"][:, :40].double()
    kept = torch.arange(0, 576, 9)
    x, y = tokens, tokens[kept]
    theirs = ot.gaussian.bures_wasserstein_distance(
        x.mean(0), y.mean(0), torch.cov(x.T, correction=0), torch.cov(y.T, correction=0)
    )
    assert gaussian_w2(tokens, kept) == pytest.approx(float(theirs), rel=1e-6)


def test_the_exact_distance_of_one_channel_is_the_sorted_coupling():
    tokens = torch.tensor([[0.0], [1.0], [5.0], [6.0]])
    # 0 and 5 carry half each: 0 -> 0, 1 -> 0, 5 -> 5, 6 -> 5.
    assert exact_w2(tokens, torch.tensor([0, 2])) == pytest.approx(math.sqrt(0.5))
    assert exact_w2(tokens, torch.tensor([1])) == pytest.approx(math.sqrt((1 + 16 + 25) / 4))


@given(case=tokens_and_kept())
def test_distances_are_ordered_as_theory_has_it(case):
    tokens, kept = case
    exact = exact_w2(tokens, kept)
    assert coverage(tokens, kept) <= exact + 1e-6
    # Gelbrich: the Gaussian distance is a lower bound.
    assert gaussian_w2(tokens, kept) <= exact + 1e-5


@given(tokens=token_matrices(max_n=12, max_d=6))
def test_keeping_everything_costs_nothing(tokens):
    everything = torch.arange(len(tokens))
    scale = float(tokens.abs().max()) + 1e-9
    assert coverage(tokens, everything) == 0
    assert exact_w2(tokens, everything) <= 1e-6 * scale
    for centred in (True, False):
        assert gaussian_w2(tokens, everything, centred=centred) <= 1e-6 * scale


def test_the_exact_distance_equals_an_assignment_of_repeated_tokens():
    from scipy.optimize import linear_sum_assignment

    tokens = real_tokens()["chelsea"][::4].double()
    kept = torch.arange(0, 144, 12)
    cost = torch.cdist(tokens, tokens[kept].repeat_interleave(12, 0)).square()
    rows, columns = linear_sum_assignment(cost)
    assert exact_w2(tokens, kept) == pytest.approx(float(cost[rows, columns].mean().sqrt()))


def test_effective_rank_counts_even_directions():
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert effective_rank(torch.ones(7, 3)) == pytest.approx(1)
    assert effective_rank(torch.zeros(4, 3)) == 0
    values = torch.tensor([3.0, 1.0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(torch.diag(values)) == pytest.approx(math.exp(entropy))


@pytest.mark.parametrize("measure", [gaussian_w2, exact_w2, coverage])
@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (torch.tensor([], dtype=torch.int64), "k >= 1"),
        (torch.tensor([0.0]), "int64 positions"),
        (torch.tensor([[0]]), "int64 positions"),
        (torch.tensor([4]), r"kept must lie in 0\.\.3, got 4"),
        (torch.tensor([-1]), r"kept must lie in 0\.\.3, got -1"),
        (torch.tensor([1, 1]), "must not repeat"),
    ],
)
def test_bad_positions_are_refused(measure, kept, message):
    with pytest.raises(ValueError, match=message):
        measure(torch.eye(4), kept)


@pytest.mark.parametrize("measure", [gaussian_w2, exact_w2, coverage])
def test_tokens_that_are_not_finite_are_refused(measure):
    with pytest.raises(ValueError, match="must be finite"):
        measure(torch.full((3, 2), float("nan")), torch.tensor([0]))


def test_without_pot_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r"pip install 'otprune\[transport\]'"):
        exact_w2(torch.eye(3), torch.tensor([0]))


@pytest.mark.parametrize("unit", [1e-8, 1e-4, 1e6])
def test_the_exact_distance_scales_with_the_unit(unit):
    tokens = real_tokens()["coffee"][::6].double()
    kept = torch.arange(0, 96, 12)
    assert exact_w2(tokens * unit, kept) == pytest.approx(exact_w2(tokens, kept) * unit, rel=1e-6)


def test_a_solver_that_does_not_converge_is_an_error(monkeypatch):
    import ot

    def stopped(*args, **kwargs):
        return torch.tensor(0.0), {"warning": "numItermax reached"}

    monkeypatch.setattr(ot, "emd2", stopped)
    with pytest.raises(ValueError, match="did not converge: numItermax"):
        exact_w2(torch.eye(3), torch.tensor([0]))
