import pytest
from hypothesis import given
from hypothesis import strategies as st

from layer_pruners.views import make_view, pruned
from otprune import make_pruner
from otprune.cost import VICUNA_7B, VICUNA_13B, DecoderShape, prefill_multiply_adds
from otprune.layer_pruners.vtw import VTW
from otprune.schedule import tokens_by_layer

ONE_LAYER = DecoderShape(hidden=4096, feed_forward=11008, layers=1, heads=32)
# Mean number of text tokens, and of LLaVA-1.6's visual tokens, of the eleven tasks of the table.
TEXT = [15, 15, 23, 83, 25, 113, 15, 39, 21, 91, 57]
LLAVA16 = [2225, 1922, 2239, 1927, 2108, 1882, 2292, 2249, 2250, 1598, 2116]


def flops(tokens: int) -> float:
    return float(prefill_multiply_adds(ONE_LAYER, tokens, "3ndm"))


def test_nothing_stays_and_nothing_is_asked():
    view = make_view(layer=16)
    assert pruned(VTW(), view, 0) == []
    assert view.probe.calls == []
    assert VTW().prune(view, 0).scores is None


def test_the_schedule_names_the_number_of_layers_that_see_the_image():
    assert VTW().plan(576, 32, None, float) == {16: 0}
    assert tokens_by_layer(VTW("4:0").plan(576, 32, None, float), 576, 32) == [576] * 4 + [0] * 28
    assert VTW("4:0.0").plan(576, 32, None, float) == {4: 0}
    assert VTW().positions == "original"


@pytest.mark.parametrize("schedule", ["16:1", "16:0.5", "8:0.5/16:0", "0:0", "16"])
def test_whatever_keeps_a_token_or_has_several_layers_or_layer_0_is_refused(schedule):
    with pytest.raises(ValueError, match=r"schedule must .*got '" + schedule):
        VTW(schedule)


@pytest.mark.parametrize("cost", [float, flops])
@given(n=st.integers(1, 3000), layers=st.integers(2, 48), ratio=st.floats(0, 1, exclude_min=True))
def test_a_target_picks_the_layer_whose_cost_is_nearest(cost, n, layers, ratio):
    target = ratio * layers * cost(n)
    distances = {
        k: abs(sum(map(cost, tokens_by_layer({k: 0}, n, layers))) - target)
        for k in range(layers + 1)
    }
    nearest = min(distances.values()) * (1 + 1e-9) + 1e-9 * cost(n)
    if ratio * layers <= 0.5:
        assert distances[0] <= nearest
        with pytest.raises(ValueError, match="the budget is out of reach"):
            VTW().plan(n, layers, target, cost)
        return
    found = VTW().plan(n, layers, target, cost)
    chosen = sum(tokens_by_layer(found, n, layers)) // n
    assert chosen >= 1
    assert distances[chosen] <= nearest


def test_a_target_in_tokens_on_average_becomes_a_layer():
    assert VTW().plan(576, 32, 32 * 192, float) == {11: 0}
    assert VTW().plan(576, 32, 32 * 64, float) == {4: 0}
    assert tokens_by_layer(VTW().plan(576, 32, 32 * 576, float), 576, 32) == [576] * 32


def test_a_target_below_half_a_layer_is_refused_with_the_least_that_can_be():
    with pytest.raises(ValueError, match=r"one of 32 layers with all 576 tokens, which is 18.0"):
        VTW().plan(576, 32, 32 * 8, float)


@pytest.mark.parametrize(
    ("name", "preset", "shape", "visual", "tera", "percent"),
    [
        ("vtw", "table1", VICUNA_7B, [576] * 11, 0.603, 18.46),
        ("vtw", "table1", VICUNA_13B, [576] * 11, 1.030, 16.16),
        ("vtw", "table1_llava16", VICUNA_7B, LLAVA16, 1.318, 11.23),
        ("fastv", "table1_7b", VICUNA_7B, [576] * 11, 0.514, 15.69),
        ("fastv", "table1_13b", VICUNA_13B, [576] * 11, 1.003, 15.73),
        ("fastv", "table1_llava16", VICUNA_7B, LLAVA16, 1.327, 11.30),
    ],
)
def test_presets_of_table_1_cost_what_the_table_prints(name, preset, shape, visual, tera, percent):
    pruner = make_pruner(name, preset=preset)
    costs, ratios = [], []
    for text, n in zip(TEXT, visual, strict=True):
        entering = tokens_by_layer(pruner.plan(n, shape.layers, None, float), n, shape.layers)
        cost = prefill_multiply_adds(shape, [text + v for v in entering], "2ndm")
        costs.append(cost / 1e12)
        ratios.append(100 * cost / prefill_multiply_adds(shape, text + n, "2ndm"))
    assert round(sum(costs) / 11, 3) == tera
    assert round(sum(ratios) / 11, 2) == percent
