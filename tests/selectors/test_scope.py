import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import by_tile, method_case, method_runs, tower_signals
from otprune import Signals, make_pruner
from otprune.kernels import unit_rows

RUNS = [pytest.param(case, run, id=f"{case}-{run['id']}") for case, run in method_runs("scope")]
# Of the others the picks are a prefix of another run's.
WITH_VALUES = [
    one for one in RUNS if f"{one.values[1]['id']}.gains" in method_case("scope", one.values[0])
]


def scope(run):
    return make_pruner("scope", alpha=run["alpha"], combined=run["combined"])


@pytest.mark.parametrize(("case", "run"), RUNS)
def test_picks_are_those_of_the_released_code_in_its_order(case, run):
    stored = method_case("scope", case)
    n, tiles = stored["meta"]["n"], stored["meta"]["tiles"]
    # The code gives each tile int(tokens / tiles); the rest, which it loses, is picked last.
    k = run["tokens_per_tile"] * tiles
    picks = scope(run).rank(torch.ones(n * tiles, 2), run["tokens"], tower_signals(stored))
    assert len(picks) == run["tokens"]
    assert by_tile(picks[:k], n, tiles) == stored[f"{run['id']}.picks"].tolist()
    assert by_tile(picks[:k].sort().values, n, tiles) == stored[f"{run['id']}.kept"].tolist()


@pytest.mark.parametrize(("case", "run"), WITH_VALUES)
def test_values_are_those_of_the_released_code(case, run):
    stored = method_case("scope", case)
    for tile, expected in enumerate(stored[f"{run['id']}.gains"]):
        units = unit_rows(torch.tensor(stored["hidden"][tile, 1:]))
        weights = torch.tensor(stored["cls_attention"][tile, :, 1:]).sum(0) ** run["alpha"]
        _, values = scope(run).cover(units @ units.T, weights, len(expected))
        torch.testing.assert_close(values, torch.tensor(expected), rtol=3e-5, atol=0)


def plain_values(features, attention, picks, alpha, combined):
    """What each token is worth after some picks: one loop a sum, in Python's floats."""
    n = len(features)
    norms = [sum(x * x for x in row) ** 0.5 for row in features]

    def cosine(i, j):
        product = sum(x * y for x, y in zip(features[i], features[j], strict=True))
        return product / norms[i] / norms[j]

    best = [max([0.0, *(cosine(i, j) for j in picks)]) for i in range(n)]
    values = {}
    for j in set(range(n)) - set(picks):
        gain = sum(max(0.0, cosine(i, j) - best[i]) for i in range(n))
        weight = sum(head[j] for head in attention) ** alpha
        values[j] = gain * weight if combined == "multi" else gain + weight
    return values


@given(
    n=st.integers(2, 12),
    alpha=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    combined=st.sampled_from(["multi", "add"]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=30)
def test_every_pick_is_the_best_by_plain_loops_but_for_rounding(n, alpha, combined, seed):
    # Coverage alone ties by nature: two tokens cover each other equally well.
    g = torch.Generator().manual_seed(seed)
    features, attention = torch.randn(n, 8, generator=g), torch.rand(3, n, generator=g)
    pruner = make_pruner("scope", alpha=alpha, combined=combined)
    signals = Signals(features=features, cls_attention=attention)
    picks = pruner.rank(torch.ones(n, 1), n, signals).tolist()
    for t in range(n):
        values = plain_values(features.tolist(), attention.tolist(), picks[:t], alpha, combined)
        assert values[picks[t]] >= max(values.values()) - 1e-5


def test_without_attention_to_anything_and_with_all_covered_the_lower_index_wins():
    signals = Signals(features=torch.ones(6, 3), cls_attention=torch.zeros(2, 6))
    assert make_pruner("scope").rank(torch.ones(6, 1), 6, signals).tolist() == list(range(6))


@pytest.mark.parametrize("alpha", [-1, float("inf"), float("nan"), "1", True, None])
def test_an_exponent_that_is_no_number_from_0_on_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be a finite number >= 0, got"):
        make_pruner("scope", alpha=alpha)


def test_another_way_to_combine_is_refused():
    with pytest.raises(ValueError, match="combined must be one of multi, add; got 'sum'"):
        make_pruner("scope", combined="sum")
