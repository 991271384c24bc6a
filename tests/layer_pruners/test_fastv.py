import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layer_pruners.views import make_view, pruned
from otprune import make_pruner
from otprune.layer_pruners.fastv import FastV


def by_hand(view, layer: int, row: int) -> list[float]:
    """Mean over heads of one row of attention at the image's tokens."""
    attention = view.probe.full_attention(layer)
    heads = len(attention)
    return [sum(float(attention[h, row, v]) for h in range(heads)) / heads for v in view.visual]


def best(scores: list[float], k: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k])


@given(
    seed=st.integers(0, 1000),
    layer=st.integers(1, 8),
    visual=st.integers(2, 40),
    after=st.integers(1, 6),
    answer=st.integers(0, 3),
    data=st.data(),
)
def test_it_keeps_what_the_question_s_last_token_attends_to_in_the_layer_before(
    seed, layer, visual, after, answer, data
):
    k = data.draw(st.integers(0, visual - 1))
    view = make_view(
        seed=seed, layer=layer, visual=visual, n=50, after=after, answer=answer, before=3
    )
    kept = FastV().prune(view, k)
    scores = by_hand(view, layer - 1, row=3 + visual + after - 1)
    assert kept.index.sort().values.tolist() == best(scores, k)
    torch.testing.assert_close(kept.scores, torch.tensor(scores), rtol=1e-5, atol=0)
    assert kept.merged is None
    assert view.probe.calls == [("attention", layer - 1, [3 + visual + after - 1])]


def test_without_a_question_the_image_s_last_token_asks():
    view = make_view(after=0, before=4, visual=12, layer=2)
    assert pruned(FastV(), view, 5) == best(by_hand(view, 1, row=15), 5)


def test_ties_go_to_the_lower_index():
    view = make_view(visual=6)
    view.probe.attention = lambda layer, rows: torch.full((4, 1, len(view.hidden)), 1 / 31)
    assert pruned(FastV(), view, 3) == [0, 1, 2]


def test_half_precision_attention_is_ranked_in_its_own_values():
    view = make_view(visual=8)
    exact = view.probe.attention
    view.probe.attention = lambda layer, rows: exact(layer, rows).half()
    assert len(pruned(FastV(), view, 3)) == 3


@pytest.mark.parametrize(
    ("settings", "plan"),
    [
        ({}, {2: 288}),
        ({"preset": "k3"}, {3: 288}),
        ({"schedule": "2:0.1111111111111111"}, {2: 64}),
        ({"schedule": "2:64"}, {2: 64}),
        ({"preset": "table1_7b"}, {3: 1}),
        ({"preset": "table1_13b"}, {3: 13}),
        ({"preset": "table1_llava16"}, {3: 2}),
    ],
)
def test_the_schedule_names_the_layer_and_what_stays(settings, plan):
    assert make_pruner("fastv", **settings).plan(576, 32, None, float) == plan


def test_it_looks_back_and_leaves_positions_as_they_are():
    pruner = FastV()
    assert pruner.looks_back
    assert pruner.positions == "original"
    assert pruner.observes == frozenset()
    assert pruner.first is None
    assert not pruner.starts


def test_layer_0_is_refused_since_no_layer_comes_before_it():
    with pytest.raises(ValueError, match="schedule must have layers >= 1, got '0:0.5'"):
        FastV("0:0.5")
    with pytest.raises(ValueError, match="got 'half'"):
        FastV("half")
