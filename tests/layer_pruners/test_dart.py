import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layer_pruners.views import make_view, pruned
from otprune import LayerPruner, make_pruner
from otprune.layer_pruners.dart import DART


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def pivots_of(view, image_pivots=4, text_pivots=4):
    """Positions of the pivots, image and text, by falling norm."""
    keys = view.probe.full_keys(view.layer - 1).double()
    norms = [sum(abs(x) for head in keys for x in head[p].tolist()) for p in range(keys.shape[1])]
    image = sorted(view.visual.tolist(), key=lambda p: (-norms[p], p))[:image_pivots]
    text = sorted(view.question.tolist(), key=lambda p: (-norms[p], p))[:text_pivots]
    return image, text


def plain_ports(view, each, order):
    """Kept positions if every pivot takes ``each`` tokens, as the ports do it."""
    image, text = pivots_of(view)
    hidden = view.probe.final_norm(view.hidden).double().tolist()
    left = [p for p in view.visual.tolist() if p not in image]
    kept = list(image)
    pivots = list(set(image + text)) if order == "reference" else image + text
    for pivot in pivots:
        left.sort(key=lambda p: (cosine(hidden[pivot], hidden[p]), p))
        kept += left[:each]
        left = left[each:]
    return sorted(kept)


def positions_kept(pruner, view, k):
    return view.visual[pruner.prune(view, k).index].sort().values.tolist()


@pytest.mark.parametrize("order", ["reference", "norm"])
@pytest.mark.parametrize("seed", range(4))
def test_the_kept_tokens_are_those_of_a_plain_implementation(order, seed):
    view = make_view(before=35, visual=150, after=20, seed=seed)
    for each in (0, 1, 4, 15):
        found = positions_kept(DART(order=order), view, 4 + 8 * each)
        assert found == plain_ports(view, each, order)


def test_the_ports_configuration_keeps_124_of_576():
    view = make_view(before=35, visual=576, after=30, hidden=32)
    each = int(576 * (1 - 0.778) / 8)
    expected = plain_ports(view, each, "reference")
    pruner = make_pruner("dart", preset="ports")
    assert each == 15
    assert pruner.plan(576, 32, None, float) == {2: 124}
    assert len(expected) == 124
    assert positions_kept(pruner, view, 124) == expected


def test_128_are_the_124_of_the_ports_and_four_more():
    view = make_view(before=35, visual=576, after=30, hidden=32)
    more = set(positions_kept(DART(), view, 128))
    assert len(more) == 128
    assert more > set(positions_kept(DART(), view, 124))


@given(v=st.integers(2, 30), after=st.integers(0, 6), seed=st.integers(0, 9), data=st.data())
def test_exactly_k_distinct_tokens_stay(v, after, seed, data):
    k = data.draw(st.integers(0, v - 1))
    settings = {
        "image_pivots": data.draw(st.integers(1, 5)),
        "text_pivots": data.draw(st.integers(0, 5)),
        "order": data.draw(st.sampled_from(["reference", "norm"])),
    }
    view = make_view(visual=v, after=after, seed=seed)
    kept = pruned(DART(**settings), view, k)
    assert len(set(kept)) == k
    assert set(kept) <= set(view.numbers.tolist())


def test_the_pivots_of_the_image_always_stay():
    view = make_view(visual=30)
    image, _ = pivots_of(view)
    assert positions_kept(DART(), view, 3) == sorted(image[:3])
    assert set(positions_kept(DART(), view, 9)) > set(image)


def test_the_rest_is_handed_out_in_the_order_of_the_pivots():
    view = make_view(visual=30)
    image, text = pivots_of(view)
    hidden = view.hidden.double().tolist()
    left = [p for p in view.visual.tolist() if p not in image]
    first = min(left, key=lambda p: cosine(hidden[image[0]], hidden[p]))
    assert positions_kept(DART(order="norm"), view, 5) == sorted([*image, first])


def test_the_order_of_the_pivots_matters():
    view = make_view(before=35, visual=200, after=20)
    assert pruned(DART(), view, 60) != pruned(DART(order="norm"), view, 60)


def test_keys_are_those_of_the_layer_just_run_and_no_attention_is_asked_for():
    view = make_view(layer=2)
    kept = DART().prune(view, 8)
    assert view.probe.calls == [("keys", 1), ("final_norm",)]
    norms = view.probe.full_keys(1).abs().sum((0, 2))[view.visual]
    torch.testing.assert_close(kept.scores, norms)


def test_an_answer_gives_no_pivots():
    view = make_view(after=5, answer=8)
    shorter = replace(
        view,
        hidden=view.hidden.index_fill(0, torch.arange(30, 38), 9.0),
    )
    assert pruned(DART(), view, 10) == pruned(DART(), shorter, 10)


def test_exact_duplicates_go_to_the_lower_index():
    view = make_view(visual=20, after=0)
    view = replace(view, hidden=torch.ones_like(view.hidden))
    image, _ = pivots_of(view)
    left = [p for p in view.visual.tolist() if p not in image]
    assert positions_kept(DART(), view, 8) == sorted(image + left[:4])


def test_it_is_a_layer_pruner_that_keeps_positions():
    pruner = make_pruner("dart")
    assert isinstance(pruner, LayerPruner)
    assert pruner.positions == "original"
    assert pruner.looks_back
    assert pruner == make_pruner("dart", preset="128")
    for preset, k in (("192", 192), ("64", 64)):
        assert make_pruner("dart", preset=preset).plan(576, 32, None, float) == {2: k}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_pivots": 0}, "image_pivots must be an integer >= 1, got 0"),
        ({"text_pivots": -1}, "text_pivots must be an integer >= 0, got -1"),
        ({"order": "set"}, "order must be one of reference, norm; got 'set'"),
        ({"schedule": "0:128"}, "schedule must begin at layer 1 or later, got '0:128'"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_pruner("dart", **settings)
