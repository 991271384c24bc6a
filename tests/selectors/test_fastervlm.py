import pytest
import torch

from helpers import by_tile, method_case, method_runs, tower_signals
from otprune import Signals, make_pruner
from otprune.selectors.fastervlm import mean_attention

RUNS = [pytest.param(case, run, id=f"{case}-{run['id']}") for case, run in method_runs("fastervlm")]


@pytest.mark.parametrize(("case", "run"), RUNS)
def test_picks_are_those_of_the_released_code_in_its_order(case, run):
    stored = method_case("fastervlm", case)
    n, tiles = stored["meta"]["n"], stored["meta"]["tiles"]
    signals, k = tower_signals(stored), run["tokens"] * tiles
    tokens = torch.ones(n * tiles, 2)
    picks = make_pruner("fastervlm").rank(tokens, k, signals)
    assert by_tile(picks, n, tiles) == stored[f"{run['id']}.topk_order"].tolist()
    kept = make_pruner("fastervlm").select(tokens, k, signals=signals)
    assert by_tile(kept, n, tiles) == stored[f"{run['id']}.kept"].tolist()
    if f"{run['id']}.score" in stored:
        expected = torch.tensor(stored[f"{run['id']}.score"]).flatten()
        torch.testing.assert_close(mean_attention(signals), expected, rtol=2e-7, atol=0)


def test_ties_go_to_the_lower_index():
    attention = torch.tensor([[0.1, 0.3, 0.3, 0.2, 0.3], [0.1, 0.3, 0.3, 0.2, 0.3]])
    picks = make_pruner("fastervlm").rank(torch.ones(5, 2), 5, Signals(cls_attention=attention))
    assert picks.tolist() == [1, 2, 4, 3, 0]


def test_each_tile_keeps_its_own_most_attended_tokens_and_ends_of_rows_come_last():
    signals = Signals(
        cls_attention=torch.tensor([[0.9, 0.8, 0.7, 0.0, 0.1, 0.2, 0.0]]),
        tiles=torch.tensor([0, 0, 0, -1, 1, 1, -1]),
    )
    kept = [
        make_pruner("fastervlm").select(torch.ones(7, 2), k, signals=signals).tolist()
        for k in range(1, 8)
    ]
    assert kept == [
        [0], [0, 5], [0, 1, 5], [0, 1, 4, 5], [0, 1, 2, 4, 5], [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5, 6],
    ]  # fmt: skip


def test_the_tokens_themselves_do_not_matter():
    g = torch.Generator().manual_seed(1)
    signals = Signals(cls_attention=torch.rand(4, 30, generator=g))
    one, other = torch.randn(30, 5, generator=g), torch.randn(30, 5, generator=g)
    pruner = make_pruner("fastervlm")
    assert torch.equal(
        pruner.select(one, 9, signals=signals), pruner.select(other, 9, signals=signals)
    )


def test_missing_attention_is_named():
    with pytest.raises(ValueError, match=r"FasterVLM needs signals\.cls_attention"):
        make_pruner("fastervlm").rank(torch.ones(5, 2), 2)
