import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import method_case, method_runs, tower_signals
from otprune import Signals, make_pruner
from otprune.selectors.holov import allot

RUNS = [pytest.param(case, run, id=f"{case}-{run['id']}") for case, run in method_runs("holov")]


def answer(case, run):
    stored = method_case("holov", case)
    pruner = make_pruner("holov", chunks=run["chunks"])
    tokens = torch.tensor(stored["projected"]).flatten(0, 1)
    return pruner, tokens, tower_signals(stored), stored


@pytest.mark.parametrize(("case", "run"), RUNS)
def test_kept_tokens_are_those_of_the_released_code_and_others_where_it_appends_zeros(case, run):
    pruner, tokens, signals, stored = answer(case, run)
    picks = pruner.rank(tokens, run["tokens"], signals).tolist()
    released = stored[f"{run['id']}.kept_in_order"][0].tolist()
    zeros = released.count(-1)
    assert len(set(picks)) == run["tokens"]
    if zeros == 0:
        assert picks == released
    else:
        assert set(released) - {-1} < set(picks)


def test_some_stored_cases_lose_tokens_and_most_do_not():
    lost = [
        (method_case("holov", case)[f"{run['id']}.kept_in_order"] < 0).sum()
        for case, run in method_runs("holov")
    ]
    assert sorted(lost)[-3:] == [29, 84, 106]
    assert sum(count == 0 for count in lost) == len(lost) - 3


@pytest.mark.parametrize(("case", "run"), RUNS)
def test_chunk_scores_are_those_of_the_released_code(case, run):
    pruner, tokens, signals, stored = answer(case, run)
    scores = pruner.chunk_scores(tokens, signals.cls_attention.mean(0))
    expected = torch.tensor(stored[f"{run['id']}.chunk_score"][0])
    torch.testing.assert_close(scores, expected, rtol=3e-7, atol=0)


@pytest.mark.parametrize(("case", "run"), RUNS)
def test_the_variances_do_not_change_what_is_kept(case, run):
    pruner, tokens, signals, _ = answer(case, run)
    kept = pruner.select(tokens, run["tokens"], signals=signals)
    other = make_pruner("holov", chunks=run["chunks"], context=50.0)
    assert torch.equal(other.select(tokens, run["tokens"], signals=signals), kept)


def plain_allot(scores, sizes, k):
    """Shares of whole tokens by fractions; surplus goes round again."""
    counts = [0] * len(sizes)
    while sum(counts) < k:
        left = k - sum(counts)
        unfilled = [i for i in range(len(sizes)) if counts[i] < sizes[i]]
        total = sum(scores[i] for i in unfilled)
        shares = {i: scores[i] * left // total for i in unfilled}
        for i in sorted(unfilled, key=lambda i: (-scores[i], i))[: left - sum(shares.values())]:
            shares[i] += 1
        for i in unfilled:
            counts[i] = min(sizes[i], counts[i] + shares[i])
    return counts


@given(
    chunks=st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 9)), min_size=1, max_size=8),
    data=st.data(),
)
def test_budgets_of_chunks_are_whole_shares_and_fit(chunks, data):
    scores, sizes = [score for score, _ in chunks], [size for _, size in chunks]
    k = data.draw(st.integers(0, sum(sizes)))
    counts = allot([float(score) for score in scores], sizes, k)
    assert sum(counts) == k
    assert all(count <= size for count, size in zip(counts, sizes, strict=True))
    # Floats may cut a share that is whole to one less, which the rest makes up for elsewhere.
    if all(score * k % sum(scores) for score in scores) and max(counts) < min(sizes):
        assert counts == plain_allot(scores, sizes, k)


def test_surplus_goes_to_the_chunks_with_tokens_left_by_the_same_rule():
    assert allot([90.0, 6.0, 4.0], [4, 8, 8], 10) == [4, 4, 2]
    assert allot([1.0, 1.0], [3, 3], 3) == [2, 1]
    assert allot([0.0, 0.0, 0.0], [2, 2, 2], 4) == [2, 1, 1]
    assert allot([5.0, 0.0], [2, 6], 7) == [2, 5]


def test_an_image_in_several_tiles_is_one_sequence_without_its_ends_of_rows():
    g = torch.Generator().manual_seed(2)
    tokens, attention = torch.randn(30, 6, generator=g), torch.rand(2, 30, generator=g)
    tiles = torch.tensor(([0] * 9 + [-1]) + ([1] * 9 + [-1]) * 2)
    ends = [9, 19, 29]
    inner = [i for i in range(30) if i not in ends]
    pruner = make_pruner("holov", chunks=4)
    kept = pruner.select(tokens, 12, signals=Signals(cls_attention=attention, tiles=tiles)).tolist()
    alone = pruner.select(
        tokens[inner], 12, signals=Signals(cls_attention=attention[:, inner])
    ).tolist()
    assert kept == [inner[i] for i in alone]
    nearly_all = pruner.select(
        tokens, 28, signals=Signals(cls_attention=attention, tiles=tiles)
    ).tolist()
    assert nearly_all == sorted([*inner, 9])


@pytest.mark.parametrize("chunks", [0, -1, 2.0, True])
def test_chunks_that_are_no_count_are_refused(chunks):
    with pytest.raises(ValueError, match="chunks must be an integer >= 1, got"):
        make_pruner("holov", chunks=chunks)


@pytest.mark.parametrize("context", [0, -1.0, float("inf"), "1"])
def test_a_weight_that_is_no_positive_number_is_refused(context):
    with pytest.raises(ValueError, match="context must be a finite number > 0, got"):
        make_pruner("holov", context=context)
