"""PruMerge against the released code's answers, a plain loop and closed forms."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otprune import Signals, make_pruner
from otprune.merger import mixed
from otprune.mergers.prumerge import PruMerge

CASES = Path(__file__).parents[1] / "data" / "parity" / "methods"
PRESETS = {
    "plus_adaptive": "plus-released",
    "base_adaptive": "released",
    "plus_fixed0.125": "plus-training",
    "base_fixed0.125": None,
}


def runs():
    for file in sorted(CASES.glob("prumerge__*.npz")):
        for name in PRESETS:
            yield pytest.param(file, name, id=f"{file.stem.split('__')[1]}-{name}")


@pytest.mark.parametrize(("file", "name"), list(runs()))
def test_the_released_answers_come_out(file, name):
    with np.load(file) as case:
        run = next(r for r in json.loads(str(case["meta"]))["runs"] if r["id"] == name)
        query, keys = (torch.from_numpy(case[x])[0] for x in ("q_last", "keys_last"))
        attention = (query @ keys.T / math.sqrt(len(query))).softmax(0)[1:]
        stored = case["plus_adaptive.cls_attention"][0]
        torch.testing.assert_close(attention, torch.from_numpy(stored))
        features = torch.from_numpy(case["hidden"])[0, 1:]
        signals = Signals(final_cls_attention=attention, final_keys=keys[1:], features=features)
        k = len(features) if run["adaptive"] else run["n_out"]
        mixture = make_pruner("prumerge", preset=PRESETS[name]).merge(features, k, signals=signals)
        assert mixture.places.tolist() == [*case[f"{name}.kept_in_order"][0].tolist(), -1]
        merged = torch.from_numpy(case[f"{name}.merged"])[0]
        assert (mixed(mixture, features) - merged).abs().max() <= 1e-6 * merged.abs().max()


def synthetic(n: int, seed: int = 0, **more) -> Signals:
    g = torch.Generator().manual_seed(seed)
    return Signals(
        cls_attention=torch.rand(2, n, generator=g),
        encoder_keys=torch.randn(n, 6, generator=g),
        final_cls_attention=torch.rand(n, generator=g) / n,
        final_keys=torch.randn(n, 6, generator=g),
        features=torch.randn(n, 5, generator=g),
        **more,
    )


def plain_loop(features, attention, keys, kept: list[int]) -> torch.Tensor:
    """Kept patches with their neighbours, and the last token, one after the other."""
    rows = []
    units = keys / keys.norm(dim=1, keepdim=True)
    for i in kept:
        others = [j for j in range(len(features)) if j != i]
        others.sort(key=lambda j: (-float(units[i] @ units[j]), j))
        rows.append(features[i] + sum(attention[j] * features[j] for j in others[:32]))
    rest = [j for j in range(len(features)) if j not in kept]
    rows.append(sum((attention[j] * features[j] for j in rest), torch.zeros(features.shape[1])))
    return torch.stack(rows)


@pytest.mark.parametrize("block", ["final", "selected"])
@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize(("n", "k"), [(60, 13), (60, 60), (60, 1), (20, 7), (2, 2), (1, 1)])
def test_a_plain_loop_gives_the_same_tokens(n, k, plus, block):
    signals = synthetic(n)
    merger = PruMerge(plus=plus, block=block)
    final = block == "final"
    attention = signals.final_cls_attention if final else signals.cls_attention.mean(0)
    keys = signals.final_keys if final else signals.encoder_keys
    mixture = merger.merge(signals.features, k, signals=signals)
    kept = mixture.places[:-1].tolist()
    assert len(set(kept)) == len(kept) == k - 1
    ranked = sorted(range(n), key=lambda i: (-float(attention[i]), i))
    top = math.ceil((k - 1) / 4) if plus else k - 1
    assert kept[:top] == ranked[:top]
    expected = plain_loop(signals.features, attention, keys, kept)
    torch.testing.assert_close(mixed(mixture, signals.features), expected)


def test_patches_beside_the_top_ones_are_evenly_spaced():
    attention = torch.zeros(21)
    attention[20] = 1.0
    assert PruMerge(plus=True, top_share=0.2).kept(attention, 6).tolist() == [20, 2, 7, 12, 17]


@pytest.mark.parametrize("plus", [False, True])
def test_an_image_without_an_outlier_gives_the_last_token_alone(plus):
    signals = synthetic(50)
    signals = Signals(
        final_cls_attention=torch.full((50,), 0.02),
        final_keys=signals.final_keys,
        features=signals.features,
    )
    mixture = PruMerge(adaptive=True, plus=plus).merge(signals.features, 50, signals=signals)
    assert mixture.places.tolist() == [-1]
    torch.testing.assert_close(mixed(mixture, signals.features)[0], signals.features.mean(0))


@given(st.integers(2, 70), st.data())
def test_no_image_gets_more_tokens_than_asked_for(n, data):
    k = data.draw(st.integers(1, n))
    signals = synthetic(n, seed=data.draw(st.integers(0, 99)))
    attention = signals.final_cls_attention.clone()
    attention[: data.draw(st.integers(0, n // 5))] += 1.0
    signals = Signals(
        final_cls_attention=attention, final_keys=signals.final_keys, features=signals.features
    )
    for settings in PruMerge.presets.values():
        merger = PruMerge(**settings)
        places = merger.merge(signals.features, k, signals=signals).places
        assert places[-1] == -1
        assert len(places) <= k
        if not merger.adaptive and not merger.repeats:
            assert len(places) == k


def test_tiles_are_merged_each_by_itself():
    tiles = torch.tensor([0] * 30 + [1] * 30 + [-1])
    signals = synthetic(61, tiles=tiles)
    mixture = PruMerge().merge(signals.features, 21, signals=signals)
    assert tiles[mixture.places[:10]].unique().tolist() == [0]
    assert (mixture.places == -1).nonzero()[:, 0].tolist() == [10, 20]
    assert (mixture.weights[:11, 30:] == 0).all()
    assert (mixture.weights[11:, :30] == 0).all()
    alone = Signals(
        final_cls_attention=signals.final_cls_attention[30:60],
        final_keys=signals.final_keys[30:60],
        features=signals.features[30:60],
    )
    second = PruMerge().merge(alone.features, 10, signals=alone)
    torch.testing.assert_close(mixture.weights[11:, 30:60], second.weights)
    assert len(PruMerge().merge(signals.features, 61, signals=signals).places) == 60
    assert len(PruMerge().merge(signals.features, 1, signals=signals).places) == 1


def test_needs_depend_on_the_block():
    assert PruMerge().needs == {"final_cls_attention", "final_keys", "features"}
    assert PruMerge(block="selected").needs == {"cls_attention", "encoder_keys", "features"}
    with pytest.raises(ValueError, match=r"needs signals.features, signals.final_cls_attention, "):
        PruMerge().merge(torch.ones(4, 2), 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"plus": 1}, "plus must be true or false, got 1"),
        ({"top_share": 0}, r"top_share must be in \(0, 1\], got 0"),
        ({"repeats": True}, "repeats=True needs plus=True and adaptive=False"),
        ({"block": "last"}, "block must be one of final, selected; got 'last'"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_pruner("prumerge", **settings)
