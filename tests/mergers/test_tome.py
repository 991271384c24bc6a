"""ToMe-style merging against a plain loop, closed forms and properties."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otprune import Signals, make_pruner
from otprune.merger import mixed
from otprune.mergers.tome import ToMe, match


def synthetic(n: int, seed: int = 0, heads: int = 2) -> Signals:
    g = torch.Generator().manual_seed(seed)
    return Signals(
        cls_attention=torch.rand(heads, n, generator=g),
        encoder_keys=torch.randn(n, heads * 4, generator=g),
        features=torch.randn(n, 5, generator=g),
    )


def plain_loop(keys: list[list[float]], k: int) -> list[list[int]]:
    """Old tokens in each new one: lists of members, merged pair by pair; the b member first."""
    clusters = [[i] for i in range(len(keys))]
    while len(clusters) > k:
        means = [
            [sum(keys[i][c] for i in one) / len(one) for c in range(len(keys[0]))]
            for one in clusters
        ]

        def cosine(x, y, means=means):
            dot = sum(a * b for a, b in zip(means[x], means[y], strict=True))
            norms = [sum(a * a for a in means[z]) ** 0.5 for z in (x, y)]
            return dot / (norms[0] * norms[1])

        b = range(1, len(clusters), 2)
        links = []
        for x in range(0, len(clusters), 2):
            best = max(b, key=lambda y, x=x: (cosine(x, y), -y))
            links.append((-cosine(x, best), x, best))
        gone = set()
        for _, x, y in sorted(links)[: min(len(clusters) - k, len(clusters) // 2)]:
            clusters[y] = clusters[y] + clusters[x]
            gone.add(x)
        clusters = [one for i, one in enumerate(clusters) if i not in gone]
    return clusters


@pytest.mark.parametrize("heads", ["mean", "all"])
@pytest.mark.parametrize(
    ("n", "k"), [(24, 17), (24, 12), (24, 5), (23, 1), (24, 24), (3, 2), (2, 1)]
)
def test_a_plain_loop_merges_the_same_tokens(n, k, heads):
    signals = synthetic(n)
    mixture = ToMe(heads=heads).merge(signals.features, k, signals=signals)
    keys = signals.encoder_keys.double()
    if heads == "mean":
        keys = keys.view(n, 2, 4).mean(1)
    clusters = plain_loop(keys.tolist(), k)
    assert mixture.places.tolist() == [one[0] for one in clusters]
    expected = torch.stack([signals.features[one].mean(0) for one in clusters])
    torch.testing.assert_close(mixed(mixture, signals.features), expected)


@given(st.integers(1, 60), st.data())
def test_every_token_is_in_one_new_token_and_shares_add_up_to_one(n, data):
    k = data.draw(st.integers(1, n))
    signals = synthetic(n, seed=data.draw(st.integers(0, 99)))
    mixture = ToMe().merge(signals.features, k, signals=signals)
    assert mixture.weights.shape == (k, n)
    assert ((mixture.weights > 0).sum(0) == 1).all()
    torch.testing.assert_close(mixture.weights.sum(1), torch.ones(k))
    assert mixture.places.tolist() == sorted(set(mixture.places.tolist()))
    assert (mixture.weights[torch.arange(k), mixture.places] > 0).all()
    # The mean over old tokens is kept if new ones count by size.
    size = (mixture.weights > 0).sum(1).float()
    mean = (size[:, None] * mixed(mixture, signals.features)).sum(0) / n
    torch.testing.assert_close(mean, signals.features.mean(0), atol=1e-5, rtol=1e-4)


def test_equal_neighbours_are_merged_before_others():
    keys = torch.randn(8, 6, generator=torch.Generator().manual_seed(2)).repeat_interleave(2, dim=0)
    places, members = match(keys, 8)
    assert places.tolist() == list(range(1, 16, 2))
    assert members.tolist() == [i // 2 for i in range(16)]


def test_exchanging_tokens_on_the_same_side_exchanges_the_answer():
    # Sides go by place, so that only such permutations can leave the answer as it is.
    signals = synthetic(16)
    order = torch.arange(16).view(8, 2)[torch.tensor([3, 6, 0, 7, 1, 5, 2, 4])].flatten()
    moved = replace(
        signals,
        encoder_keys=signals.encoder_keys[order],
        features=signals.features[order],
    )
    plain = ToMe().merge(signals.features, 8, signals=signals)
    other = ToMe().merge(moved.features, 8, signals=moved)
    rows = {tuple(row) for row in (plain.weights > 0).tolist()}
    back = torch.empty(8, 16).index_copy_(1, order, other.weights)
    assert {tuple(row) for row in (back > 0).tolist()} == rows


def test_tiles_are_merged_each_by_itself_and_ends_of_rows_are_left_out():
    # Two tiles side by side: their rows alternate.
    tiles = torch.tensor(([0] * 4 + [1] * 4 + [-1]) * 4)
    signals = replace(synthetic(36), tiles=tiles)
    mixture = ToMe().merge(signals.features, 10, signals=signals)
    counts = [(mixture.weights[:, tiles == tile].sum(1) > 0).sum() for tile in (0, 1, -1)]
    assert counts == [5, 5, 0]
    assert mixture.places.tolist() == sorted(mixture.places.tolist())
    assert len(ToMe().merge(signals.features, 36, signals=signals).places) == 32
    assert len(ToMe().merge(signals.features, 1, signals=signals).places) == 1


def test_the_number_of_heads_is_needed_only_for_their_mean():
    assert ToMe().needs == {"encoder_keys", "features", "cls_attention"}
    assert ToMe(heads="all").needs == {"encoder_keys", "features"}
    with pytest.raises(ValueError, match="heads must be one of mean, all; got 'sum'"):
        make_pruner("tome", heads="sum")
