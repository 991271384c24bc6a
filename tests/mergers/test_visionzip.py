"""VisionZip against the released code's answers, a plain loop and closed forms."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from otprune import Signals, make_pruner
from otprune.merger import mixed
from otprune.mergers.visionzip import VisionZip

CASES = Path(__file__).parents[1] / "data" / "parity" / "methods"
FILES = sorted(CASES.glob("visionzip__*.npz"))


def runs():
    for file in FILES:
        with np.load(file) as case:
            for run in json.loads(str(case["meta"]))["runs"]:
                yield pytest.param(file, run, id=f"{file.stem.split('__')[1]}-{run['id']}")


def stored(case, name):
    return torch.from_numpy(case[name])


def signals_of(case, layout: torch.Tensor | None = None) -> Signals:
    """Signals of the stored tiles laid end to end, or in the order of a layout."""
    hidden, attention, keys = (stored(case, x) for x in ("hidden", "cls_attention", "keys"))
    tiles, rows = hidden.shape[:2]
    n = rows - 1
    order = torch.arange(tiles * n) if layout is None else layout
    return Signals(
        tiles=(torch.arange(tiles).repeat_interleave(n))[order] if tiles > 1 else None,
        cls_attention=attention[:, :, 1:].permute(1, 0, 2).flatten(1)[:, order],
        encoder_keys=keys[:, :, 1:].transpose(1, 2).flatten(2).flatten(0, 1)[order],
        features=hidden[:, 1:].flatten(0, 1)[order],
        cls_features=hidden[:, 0],
    )


def explicit(run: dict) -> VisionZip:
    return make_pruner("visionzip", contextual=run["contextual"])


def made(case, run, layout=None):
    """The signals, the mixture and the mixed features of a stored run."""
    signals = signals_of(case, layout)
    count = (run["dominant"] + run["contextual"]) * len(signals.cls_features)
    mixture = explicit(run).merge(signals.features, count, signals=signals)
    return signals, mixture, mixed(mixture, torch.cat([signals.features, signals.cls_features]))


@pytest.mark.parametrize(("file", "run"), [r for r in runs() if "tiles5x" not in r.values[0].stem])
def test_the_released_answers_come_out_of_one_tile(file, run):
    with np.load(file) as case:
        signals, mixture, tokens = made(case, run)
        dominant, count, n = run["dominant"], run["contextual"], len(signals.features)
        key = run["id"]
        assert mixture.places[0] == -1
        assert mixture.places[1:dominant].tolist() == case[f"{key}.dominant"][0].tolist()
        assert mixture.places[dominant:].tolist() == case[f"{key}.targets"][0].tolist()
        shares = mixture.weights[dominant:, :n]
        assignment = torch.where(shares.sum(0) > 0, shares.argmax(0), -1)
        assert assignment.tolist() == case[f"{key}.assignment"][0].tolist()
        assert torch.equal(tokens[0], signals.cls_features[0])
        assert torch.equal(tokens[1:dominant], signals.features[mixture.places[1:dominant]])
        contextual = stored(case, f"{key}.contextual")[0]
        assert (tokens[dominant:] - contextual).abs().max() <= 1e-6 * contextual.abs().max()
        assert len(tokens) == dominant + count


def two_by_two(side: int) -> torch.Tensor:
    """Tiles 1 to 4 as one raster after tile 0: numbers of the patches laid tile by tile."""
    numbers = torch.arange(5 * side * side).view(5, side, side)
    upper = torch.cat([numbers[1], numbers[2]], dim=1)
    lower = torch.cat([numbers[3], numbers[4]], dim=1)
    return torch.cat([numbers[0].flatten(), torch.cat([upper, lower]).flatten()])


@pytest.mark.parametrize(("file", "run"), [r for r in runs() if "tiles5x" in r.values[0].stem])
def test_the_released_order_comes_out_of_five_tiles(file, run):
    with np.load(file) as case:
        layout = two_by_two(24)
        signals, mixture, tokens = made(case, run, layout)
        key, dominant = run["id"], run["dominant"]
        hidden = stored(case, "hidden")
        chosen = stored(case, f"{key}.dominant").long()
        per_tile = torch.cat(
            [
                hidden[:, :1],
                torch.stack([tile[1 + index] for tile, index in zip(hidden, chosen, strict=True)]),
                stored(case, f"{key}.contextual"),
            ],
            dim=1,
        )
        order = stored(case, f"{key}.next_order").long()
        expected = per_tile[order[:, 0], order[:, 1]]
        assert (tokens - expected).abs().max() <= 1e-6 * expected.abs().max()
        where = mixture.places[mixture.places >= 0]
        assert torch.equal(signals.tiles[where], order[order[:, 1] > 0][:, 0])
        assert (mixture.places < 0).sum() == len(hidden)
        assert len(tokens) == (dominant + run["contextual"]) * len(hidden)


@pytest.mark.parametrize(
    ("k", "split"), [(64, (54, 10)), (128, (108, 20)), (192, (162, 30)), (56, (47, 9)), (1, (1, 0))]
)
def test_the_default_rule_gives_the_published_splits(k, split):
    assert VisionZip().split(k) == split


def test_the_released_defaults_are_a_preset():
    assert make_pruner("visionzip", preset="released").split(221) == (191, 30)


def synthetic(n: int, heads: int = 2, width: int = 6, seed: int = 0, **more) -> Signals:
    g = torch.Generator().manual_seed(seed)
    return Signals(
        cls_attention=torch.rand(heads, n, generator=g),
        encoder_keys=torch.randn(n, heads * 3, generator=g),
        features=torch.randn(n, width, generator=g),
        cls_features=torch.randn(1, width, generator=g),
        **more,
    )


def plain_loop(signals: Signals, dominant: int, contextual: int, average: bool) -> list[list]:
    """The method as the paper writes it, one token after the other."""
    attention, heads = signals.cls_attention.sum(0).tolist(), len(signals.cls_attention)
    features, n = signals.features.tolist(), len(signals.features)
    keys = signals.encoder_keys.view(n, heads, -1).mean(1).double()
    keys = (keys / keys.norm(dim=1, keepdim=True)).tolist()
    ranked = sorted(range(n), key=lambda i: (-attention[i], i))
    chosen = sorted(ranked[: dominant - 1])
    rest = [i for i in range(n) if i not in chosen]
    tokens = [signals.cls_features[0].tolist()] + [features[i] for i in chosen]
    if contextual == 0:
        return tokens
    targets = rest[:: max(1, len(rest) // contextual)][:contextual]
    members: dict = {t: [] for t in targets}
    for i in rest:
        if i not in members:
            likeness = {
                t: sum(a * b for a, b in zip(keys[i], keys[t], strict=True)) for t in members
            }
            members[max(members, key=likeness.get)].append(i)
    for t, assigned in members.items():
        row = []
        for c, own in enumerate(features[t]):
            others = [features[i][c] for i in assigned]
            if average:
                row.append((own + sum(others)) / (1 + len(others)))
            else:
                row.append(own + sum(others) / max(1, len(others)))
        tokens.append(row)
    return tokens


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize(
    ("n", "k", "contextual"),
    [(30, 12, 4), (30, 30, 9), (30, 12, 0), (7, 5, 4), (5, 1, 3), (9, 9, 8)],
)
def test_a_plain_loop_gives_the_same_tokens(n, k, contextual, average):
    signals = synthetic(n)
    rule = "average" if average else "code"
    merger = VisionZip(contextual=contextual, contextual_mean=rule)
    mixture = merger.merge(signals.features, k, signals=signals)
    tokens = mixed(mixture, torch.cat([signals.features, signals.cls_features]))
    count = min(contextual, k - 1)
    expected = torch.tensor(plain_loop(signals, k - count, count, average))
    assert len(tokens) == k
    torch.testing.assert_close(tokens, expected)


def test_shares_of_a_true_average_add_up_to_one_and_the_code_s_to_two():
    signals = synthetic(40)
    rows = VisionZip(contextual_mean="average").merge(signals.features, 16, signals=signals).weights
    torch.testing.assert_close(rows.sum(1), torch.ones(16))
    rows = VisionZip(contextual=2).merge(signals.features, 16, signals=signals).weights
    torch.testing.assert_close(rows.sum(1), torch.tensor([1.0] * 14 + [2.0] * 2))


def test_ends_of_rows_are_left_out_even_of_a_budget_that_has_room_for_them():
    tiles = torch.tensor([0] * 9 + [1] * 4 + [-1] + [1] * 4 + [-1])
    signals = synthetic(19, tiles=tiles)
    with pytest.raises(ValueError, match="cls_features must have a row for 2 tiles, got 1"):
        VisionZip().merge(signals.features, 5, signals=signals)
    signals = replace(signals, cls_features=torch.randn(2, 6))
    mixture = VisionZip().merge(signals.features, 19, signals=signals)
    assert len(mixture.places) == 17
    assert (mixture.weights[:, [13, 18]] == 0).all()
    assert mixture.weights.shape == (17, 21)
    assert len(VisionZip().merge(signals.features, 1, signals=signals).places) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contextual": -2}, "contextual must be an integer >= -1, got -2"),
        ({"contextual_share": 1.0}, r"contextual_share must be in \[0, 1\), got 1.0"),
        ({"contextual_share": True}, "contextual_share must be"),
        ({"contextual_mean": "sum"}, "contextual_mean must be one of code, average; got 'sum'"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_pruner("visionzip", **settings)


def test_a_missing_signal_is_named():
    with pytest.raises(
        ValueError, match=r"VisionZip needs signals.cls_attention, signals.cls_feat"
    ):
        VisionZip().merge(torch.ones(4, 2), 2)
