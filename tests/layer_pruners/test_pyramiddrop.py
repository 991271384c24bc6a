import pytest
from hypothesis import given
from hypothesis import strategies as st

from layer_pruners.views import make_view, pruned
from otprune import make_pruner
from otprune.layer_pruners.pyramiddrop import PyramidDrop
from otprune.schedule import tokens_by_layer


def by_hand(view, k: int, row: int) -> list[int]:
    """Numbers of the k tokens with the largest sum over heads of the layer's attention."""
    attention = view.probe.full_attention(view.layer)
    scores = [
        (-sum(float(head[row, place]) for head in attention), int(number))
        for place, number in zip(view.visual, view.numbers, strict=True)
    ]
    return sorted(number for _, number in sorted(scores)[:k])


@given(
    seed=st.integers(0, 1000),
    layer=st.integers(1, 8),
    visual=st.integers(2, 40),
    after=st.integers(1, 6),
    answer=st.integers(0, 3),
    data=st.data(),
)
def test_it_keeps_what_the_question_s_last_token_attends_to_in_the_layer_about_to_run(
    seed, layer, visual, after, answer, data
):
    k = data.draw(st.integers(0, visual - 1))
    view = make_view(
        seed=seed, layer=layer, visual=visual, n=50, after=after, answer=answer, before=3
    )
    row = 3 + visual + after - 1
    assert pruned(PyramidDrop(), view, k) == by_hand(view, k, row)
    assert view.probe.calls == [("attention", layer, [row])]


def test_without_a_question_the_image_s_last_token_asks():
    view = make_view(after=0, before=4, visual=12)
    assert pruned(PyramidDrop(), view, 5) == by_hand(view, 5, row=15)


def test_scores_are_those_of_the_tokens_in_the_order_of_the_sequence():
    view = make_view(visual=15, layer=8)
    kept = PyramidDrop().prune(view, 4)
    assert kept.scores is not None
    assert kept.index.tolist() == kept.scores.argsort(descending=True)[:4].tolist()


@pytest.mark.parametrize(
    ("schedule", "counts"),
    [
        ("8:0.5/16:0.25/24:0.125", {8: 288, 16: 144, 24: 72}),
        ("8:0.6/16:0.3/24:0.1", {8: 345, 16: 172, 24: 57}),
    ],
)
def test_shares_are_of_the_tokens_before_any_pruning_and_cut_to_whole_numbers(schedule, counts):
    assert PyramidDrop(schedule).plan(576, 32, None, float) == counts


def test_the_default_leaves_270_of_576_tokens_on_average():
    pruner = make_pruner("pyramiddrop")
    entering = tokens_by_layer(pruner.plan(576, 32, None, float), 576, 32)
    assert sum(entering) / 32 == 270


def test_less_than_a_quarter_on_average_is_out_of_reach_of_the_default_layers():
    with pytest.raises(ValueError, match=r"the budget is out of reach: with layers 8, 16, 24"):
        PyramidDrop().plan(576, 32, 32 * 128, float)
    found = PyramidDrop().plan(576, 32, 32 * 192, float)
    assert sum(tokens_by_layer(found, 576, 32)) == 32 * 192


def test_positions_are_numbered_anew_and_layer_0_is_refused():
    assert PyramidDrop().positions == "compact"
    assert not PyramidDrop().looks_back
    with pytest.raises(ValueError, match="schedule must have layers >= 1"):
        PyramidDrop("0:0.5/8:0.25")
