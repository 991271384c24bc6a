import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import by_tile, method_case, method_runs, tower_signals
from otprune import PRUNERS, Signals, make_pruner
from otprune.kernels import unit_rows
from otprune.selectors.vispruner import next_round

RUNS = method_runs("vispruner")
SETTLED = [
    pytest.param(case, run, tile, id=f"{case}-{run['id']}-{tile}")
    for case, run in RUNS
    for tile, exchanged in enumerate(run["float64"]["set_difference"])
    if exchanged == 0
]
STEPPED = [case for case, run in RUNS if "steps" in run["float64"]]


def picked(case, run):
    stored = method_case("vispruner", case)
    n, tiles = stored["meta"]["n"], stored["meta"]["tiles"]
    pruner = make_pruner("vispruner", important_ratio=run["important_ratio"])
    picks = pruner.rank(torch.ones(n * tiles, 2), run["tokens"] * tiles, tower_signals(stored))
    return by_tile(picks, n, tiles), stored


@pytest.mark.parametrize(("case", "run", "tile"), SETTLED)
def test_where_float64_settles_it_the_tokens_are_those_of_the_released_code(case, run, tile):
    picks, stored = picked(case, run)
    important = stored[f"{run['id']}.important"][tile].tolist()
    diverse = stored[f"{run['id']}.diverse_order"][tile].tolist()
    assert picks[tile] == important + diverse
    assert sorted(picks[tile]) == stored[f"{run['id']}.kept"][tile].tolist()


def test_enough_of_the_stored_runs_are_settled():
    assert len(SETTLED) == 16


@pytest.mark.parametrize(("case", "run"), RUNS)
def test_the_most_attended_tokens_are_always_those_of_the_released_code(case, run):
    picks, stored = picked(case, run)
    for mine, important in zip(picks, stored[f"{run['id']}.important"].tolist(), strict=True):
        assert mine[: len(important)] == important


@pytest.mark.parametrize("case", STEPPED)
def test_every_single_round_is_that_of_the_released_code(case):
    stored = method_case("vispruner", case)
    run = next(run for run in stored["meta"]["runs"] if "steps" in run["float64"])
    units = unit_rows(torch.tensor(stored["hidden"][0, 1:]).double())
    similarity = units @ units.T
    lengths = stored[f"{run['id']}.residual_lengths"].tolist()
    ends = np.cumsum([0, *lengths])
    lists = torch.tensor(stored[f"{run['id']}.residual_steps"]).long()
    rounds = [lists[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
    others = []
    for before, after in zip(rounds[:-1], rounds[1:], strict=True):
        mine = next_round(before, lengths[-1], similarity)
        if mine.tolist() != after.tolist():
            others.append(mine)
            # The same tokens stay; two whose scores differ by rounding have changed places.
            assert set(mine.tolist()) == set(after.tolist())
    assert len(others) == run["float64"]["steps_with_other_order"]
    assert len(others) <= 1


def plain_rounds(residual, target, cosine):
    """The procedure with lists, and what is done here where the released code breaks off."""
    while len(residual) > target > 0:
        even, odd = residual[0::2], residual[1::2]
        scores = {a: max(cosine[a][b] for b in odd) for a in even}
        drop = min(8, len(residual) - target, len(even))
        ranked = sorted(even, key=lambda a: (-scores[a], -a))
        residual = ranked[drop:] + odd
    return residual if target else []


@given(
    n=st.integers(2, 40),
    ratio=st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
@settings(max_examples=60)
def test_picks_are_those_of_plain_lists_at_every_length(n, ratio, seed, data):
    g = torch.Generator().manual_seed(seed)
    k = data.draw(st.integers(1, n - 1))
    features, attention = torch.randn(n, 6, generator=g), torch.rand(2, n, generator=g)
    picks = make_pruner("vispruner", important_ratio=ratio).rank(
        torch.ones(n, 1), k, Signals(features=features, cls_attention=attention)
    )
    units = unit_rows(features.double())
    cosine = (units @ units.T).tolist()
    order = sorted(range(n), key=lambda i: -attention.mean(0)[i].item())
    important = int(k * ratio)
    expected = plain_rounds(order[important:], k - important, cosine)
    assert picks.tolist() == order[:important] + expected


@pytest.mark.parametrize(
    ("k", "ratio"), [(58, 0.5), (130, 0.5), (1, 0.5), (4, 0.5), (8, 0.5), (2, 0.0)]
)
def test_budgets_at_which_the_released_code_breaks_off_are_met(k, ratio):
    stored = method_case("vispruner", "smooth576")
    pruner = make_pruner("vispruner", important_ratio=ratio)
    kept = pruner.select(torch.ones(576, 2), k, signals=tower_signals(stored))
    assert len(kept) == k


def test_of_exact_duplicates_one_stays():
    g = torch.Generator().manual_seed(4)
    # Equally attended, they stand side by side in the list: one at an even place, one at an odd.
    features = torch.randn(8, 16, generator=g).repeat(2, 1)
    attention = torch.rand(1, 8, generator=g).repeat(1, 2)
    kept = make_pruner("vispruner", important_ratio=0.0).select(
        torch.ones(16, 1), 8, signals=Signals(features=features, cls_attention=attention)
    )
    assert kept.tolist() == list(range(8, 16))


def test_presets_are_the_ratios_of_the_authors_page():
    ratios = {name: made["important_ratio"] for name, made in PRUNERS["vispruner"].presets.items()}
    assert ratios == {"128_tokens": 0.5, "64_tokens": 0.75, "160_tokens_of_5_tiles": 0.5}


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan"), "0.5", True])
def test_a_ratio_outside_0_to_1_is_refused(ratio):
    with pytest.raises(ValueError, match=r"important_ratio must lie in 0\.\.1, got"):
        make_pruner("vispruner", important_ratio=ratio)
