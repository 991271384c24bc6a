import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otprune import Signals
from otprune.tiles import patches, pick_by_tiles, row_ends, share_out, tile_groups


def water_level(k: int, sizes: list[int]) -> list[int]:
    """One token a time to the first of the tiles with the fewest, as long as it has any left."""
    shares = [0] * len(sizes)
    for _ in range(k):
        unfilled = [i for i in range(len(sizes)) if shares[i] < sizes[i]]
        shares[min(unfilled, key=lambda i: shares[i])] += 1
    return shares


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), data=st.data())
def test_shares_are_those_of_giving_one_token_at_a_time_to_the_poorest_tile(sizes, data):
    k = data.draw(st.integers(0, sum(sizes)))
    assert share_out(k, sizes) == water_level(k, sizes)


def test_what_does_not_divide_goes_to_the_first_tiles():
    assert share_out(322, [576] * 5) == [65, 65, 64, 64, 64]
    assert share_out(12, [2, 9, 9]) == [2, 5, 5]


@pytest.mark.parametrize(("k", "sizes"), [(-1, [3]), (4, [3]), (1, [])])
def test_a_count_that_the_tiles_do_not_hold_is_refused(k, sizes):
    with pytest.raises(ValueError, match=rf"k must be in 0\.\.{sum(sizes)}.*, got {k}"):
        share_out(k, sizes)


def test_tokens_are_grouped_by_tile_and_ends_of_rows_by_themselves():
    signals = Signals(tiles=torch.tensor([0, 0, 2, 1, -1, 1, 2, -1]))
    assert [group.tolist() for group in tile_groups(signals, 8)] == [[0, 1], [3, 5], [2, 6]]
    assert row_ends(signals).tolist() == [4, 7]
    assert patches(signals, 8).tolist() == [0, 1, 2, 3, 5, 6]


def test_an_image_without_tiles_is_one_group():
    assert [group.tolist() for group in tile_groups(Signals(), 3)] == [[0, 1, 2]]
    assert row_ends(Signals()).tolist() == []
    assert patches(Signals(), 3).tolist() == [0, 1, 2]


@given(
    tiles=st.lists(st.integers(-1, 3), min_size=1, max_size=20),
    seed=st.integers(0, 1000),
)
def test_picks_by_tiles_are_nested_and_take_ends_of_rows_last(tiles, seed):
    n = len(tiles)
    scores = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    signals = Signals(tiles=torch.tensor(tiles))

    def pick(index, count):
        return scores[index].argsort(descending=True)[:count]

    everything = pick_by_tiles(signals, n, n, pick, scores.device).tolist()
    assert sorted(everything) == list(range(n))
    ends = [i for i in range(n) if tiles[i] < 0]
    assert everything[n - len(ends) :] == ends
    groups = {tile: [i for i in range(n) if tiles[i] == tile] for tile in sorted(set(tiles) - {-1})}
    for k in range(1, n):
        picks = pick_by_tiles(signals, n, k, pick, scores.device).tolist()
        assert picks == everything[:k]
        shares = share_out(min(k, n - len(ends)), [len(group) for group in groups.values()])
        for group, share in zip(groups.values(), shares, strict=True):
            best = sorted(group, key=lambda i: -scores[i])[:share]
            assert [i for i in picks if i in group] == best
