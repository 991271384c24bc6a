"""Pooling and down-sampling: closed forms, and which coarser raster stands for a budget."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import avg_pool2d

from otprune import Signals, make_pruner
from otprune.merger import mixed
from otprune.mergers.downsample import Downsample
from otprune.mergers.pooling import Pooling
from otprune.mergers.rasters import coarse_shape
from otprune.tiles import tile_rasters


def tokens_of(n: int, d: int = 3) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize(("rows", "columns", "factor"), [(24, 24, 2), (24, 24, 3), (6, 12, 2)])
def test_whole_factors_are_average_pooling(rows, columns, factor):
    tokens = tokens_of(rows * columns)
    k = rows * columns // factor**2
    signals = Signals(grid=(rows, columns))
    mixture = Pooling().merge(tokens, k, signals=signals)
    image = tokens.T.view(1, 3, rows, columns)
    expected = avg_pool2d(image, factor).flatten(2)[0].T
    torch.testing.assert_close(mixed(mixture, tokens), expected)


def test_a_patch_may_lie_in_two_bins():
    # Three patches in two bins: half of the middle one is in each.
    signals = Signals(grid=(1, 3))
    weights = Pooling().merge(torch.ones(3, 1), 2, signals=signals).weights
    expected = torch.tensor([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    torch.testing.assert_close(weights, expected)


def by_small_steps(rows: int, columns: int, shape: tuple[int, int]) -> torch.Tensor:
    """Weights by cutting the image into pieces so small that every border runs between them."""
    weights = torch.zeros(shape[0] * shape[1], rows * columns)
    for y in range(rows * shape[0]):
        for x in range(columns * shape[1]):
            bin_ = y // rows * shape[1] + x // columns
            weights[bin_, y // shape[0] * columns + x // shape[1]] += 1
    return weights / weights.sum(1, keepdim=True)


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_bins_are_equal_parts_of_the_image(rows, columns, data):
    n = rows * columns
    k = data.draw(st.integers(1, n))
    mixture = Pooling().merge(torch.ones(n, 1), k, signals=Signals(grid=(rows, columns)))
    shape = coarse_shape(k, rows, columns)
    assert len(mixture.places) == shape[0] * shape[1] <= k
    torch.testing.assert_close(mixture.weights, by_small_steps(rows, columns, shape))
    torch.testing.assert_close(mixture.weights.sum(1), torch.ones(len(mixture.places)))
    # Every patch has the same share in the whole.
    share = torch.full((n,), len(mixture.places) / n)
    torch.testing.assert_close(mixture.weights.sum(0), share)
    assert (mixture.weights[torch.arange(len(mixture.places)), mixture.places] > 0).all()
    assert mixture.places.tolist() == sorted(set(mixture.places.tolist()))


@pytest.mark.parametrize(
    ("k", "grid", "shape"),
    [
        (64, (24, 24), (8, 8)),
        (128, (24, 24), (11, 11)),
        (192, (24, 24), (12, 16)),
        (56, (24, 24), (7, 8)),
        (57, (24, 24), (7, 8)),
        (576, (24, 24), (24, 24)),
        (1, (24, 24), (1, 1)),
        (3, (24, 24), (1, 1)),
        (2, (24, 12), (2, 1)),
        (1, (2, 30), (1, 1)),
        (7, (1, 30), (1, 7)),
        (8, (3, 5), (2, 4)),
    ],
)
def test_the_coarser_raster_fills_the_budget_and_keeps_the_aspect(k, grid, shape):
    assert coarse_shape(k, *grid) == shape


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_no_other_raster_of_the_same_aspect_fills_the_budget_better(rows, columns, data):
    k = data.draw(st.integers(1, rows * columns))

    def stretched(r, c):
        return max(r * columns / (c * rows), c * rows / (r * columns))

    r, c = coarse_shape(k, rows, columns)
    assert 1 <= r <= rows
    assert 1 <= c <= columns
    possible = [
        (y, x)
        for y in range(1, rows + 1)
        for x in range(1, columns + 1)
        if y * x <= k and stretched(y, x) <= 1.5
    ]
    if possible:
        assert stretched(r, c) <= 1.5
        assert r * c == max(y * x for y, x in possible)
    assert r * c <= k


def test_budgets_of_24_x_24_lose_little_to_the_raster():
    lost = {}
    for k in range(16, 577):
        r, c = coarse_shape(k, 24, 24)
        lost[k] = 1 - r * c / k
    assert max(lost, key=lost.__getitem__) == 19
    assert max(lost.values()) == pytest.approx(3 / 19)
    assert sum(lost.values()) / len(lost) == pytest.approx(0.0174, abs=1e-4)


def five_tiles() -> tuple[Signals, int]:
    """Tile 0 of 4 x 4, then two by two tiles with padding cut: 6 rows of 8 patches and an end."""
    rows = []
    for y in range(6):
        left, right = (1, 2) if y < 3 else (3, 4)
        rows += [left] * 4 + [right] * 4 + [-1]
    tiles = torch.tensor([0] * 16 + rows)
    return Signals(tiles=tiles), len(tiles)


def test_every_tile_is_a_raster_though_rows_alternate():
    signals, n = five_tiles()
    rasters = tile_rasters(signals, n)
    assert [tuple(raster.shape) for raster in rasters] == [(4, 4)] + [(3, 4)] * 4
    assert rasters[2].tolist() == [[20, 21, 22, 23], [29, 30, 31, 32], [38, 39, 40, 41]]
    mixture = Pooling().merge(torch.ones(n, 1), 20, signals=signals)
    assert len(mixture.places) == 20
    assert (mixture.weights[:, signals.tiles < 0] == 0).all()
    assert signals.tiles[mixture.places].tolist() == [i // 4 for i in range(20)]
    assert (mixture.weights[4] > 0).nonzero().flatten().tolist() == [16, 17, 25, 26]
    assert len(Pooling().merge(torch.ones(n, 1), 3, signals=signals).places) == 3
    assert len(Pooling().merge(torch.ones(n, 1), n, signals=signals).places) == 64


def test_tiles_after_each_other_are_squares():
    signals = Signals(tiles=torch.arange(3).repeat_interleave(9))
    assert [tuple(r.shape) for r in tile_rasters(signals, 27)] == [(3, 3)] * 3


@pytest.mark.parametrize("tiles", [[0] * 5, [0, 0, -1, 0, -1], [0, -1, 0, 0, -1, 0]])
def test_a_tile_that_is_no_raster_is_refused(tiles):
    with pytest.raises(ValueError, match="signals.tiles must make each tile a raster"):
        Pooling().merge(torch.ones(len(tiles), 1), 2, signals=Signals(tiles=torch.tensor(tiles)))


def test_pooling_without_a_shape_is_refused():
    with pytest.raises(ValueError, match=r"signals.grid must be given"):
        make_pruner("pooling").merge(torch.ones(9, 1), 2)


def encode_at(rows: int, columns: int) -> torch.Tensor:
    return torch.arange(rows * columns * 2.0).view(-1, 2)


def test_downsampling_gives_the_tokens_of_the_smaller_image():
    signals = Signals(grid=(6, 12), encode_at=encode_at)
    mixture = make_pruner("downsample").merge(torch.ones(72, 2), 18, signals=signals)
    assert mixture.weights is None
    assert torch.equal(mixture.tokens, encode_at(3, 6))
    assert mixture.places[:7].tolist() == [13, 15, 17, 19, 21, 23, 37]


def test_downsampling_of_several_tiles_looks_at_the_first():
    signals, n = five_tiles()
    signals = Signals(tiles=signals.tiles, encode_at=encode_at)
    mixture = Downsample().merge(torch.ones(n, 2), 4, signals=signals)
    assert mixture.places.tolist() == [5, 7, 13, 15]
    assert len(Downsample().merge(torch.ones(n, 2), n, signals=signals).places) == 16


def test_downsampling_of_an_unknown_raster_takes_a_square_and_gives_no_places():
    signals = Signals(encode_at=encode_at)
    mixture = Downsample().merge(torch.ones(17, 2), 4, signals=signals)
    assert mixture.places.tolist() == [-1] * 4
    assert torch.equal(mixture.tokens, encode_at(2, 2))


def test_downsampling_needs_as_many_tokens_as_it_asked_for():
    signals = Signals(grid=(4, 4), encode_at=lambda r, c: torch.ones(r * c + 1, 2))
    with pytest.raises(ValueError, match=r"encode_at\(2, 2\) must give 4 tokens .* shape \(5, 2\)"):
        Downsample().merge(torch.ones(16, 2), 4, signals=signals)
    with pytest.raises(ValueError, match=r"Downsample needs signals.encode_at"):
        Downsample().merge(torch.ones(16, 2), 4)
