import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layer_pruners.views import make_modules, make_view, pruned
from otprune import Modules, make_pruner
from otprune.cost import VICUNA_7B, prefill_multiply_adds
from otprune.layer_pruners.transprune import TransPrune
from otprune.schedule import tokens_by_layer


def transitions(before, after, formula: str) -> list[float]:
    """Softmax over tokens of the change of direction, times the change of length; one prompt."""
    directions, lengths = [], []
    for x, y in zip(before.double().tolist(), after.double().tolist(), strict=True):
        dot = sum(a * b for a, b in zip(x, y, strict=True))
        nx, ny = math.sqrt(sum(a * a for a in x)), math.sqrt(sum(b * b for b in y))
        cos = dot / (nx * ny)
        directions.append(math.exp(1 - (abs(cos) if formula == "paper" else cos)))
        lengths.append(ny / nx)
    whole = sum(directions)
    return [d / whole * m for d, m in zip(directions, lengths, strict=True)]


def both_halves(modules: Modules, row: int, formula: str) -> torch.Tensor:
    attention = transitions(modules.attention_in[row], modules.attention_out[row], formula)
    network = transitions(modules.feed_forward_in[row], modules.feed_forward_out[row], formula)
    return torch.tensor([a + b for a, b in zip(attention, network, strict=True)])


@pytest.mark.parametrize("formula", ["code", "paper"])
@given(seed=st.integers(0, 1000), rows=st.integers(1, 3), t=st.integers(1, 20))
def test_a_transition_is_the_share_of_turning_times_the_change_of_length(formula, seed, rows, t):
    modules = make_modules(rows=rows, t=t, seed=seed)
    found = TransPrune(formula=formula).observe(modules)
    expected = torch.stack([both_halves(modules, row, formula) for row in range(rows)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_the_code_and_the_paper_differ_where_a_half_turns_tokens_round():
    modules = make_modules(t=9)
    code, paper = (TransPrune(formula=f).observe(modules) for f in ("code", "paper"))
    assert not torch.allclose(code, paper, rtol=0.05)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("rubbish", [0.0, 3.0, float("nan"), float("inf")])
def test_padding_counts_nothing_whatever_stands_there(side, rubbish):
    alone = make_modules(rows=1, t=7, seed=3)
    pad = torch.full((1, 4, 16), rubbish)
    order = (lambda x: [pad, x]) if side == "left" else (lambda x: [x, pad])
    parts = [
        torch.cat(order(part), 1)
        for part in (
            alone.attention_in,
            alone.attention_out,
            alone.feed_forward_in,
            alone.feed_forward_out,
        )
    ]
    valid = torch.zeros(1, 11, dtype=torch.bool)
    valid[:, 4:] = side == "left"
    valid[:, :7] |= side == "right"
    found = TransPrune().observe(Modules(6, *parts, valid=valid))
    expected = TransPrune().observe(alone)
    torch.testing.assert_close(found[valid][None], expected, rtol=1e-6, atol=0)
    assert found[~valid].tolist() == [0] * 4


def test_half_precision_is_worked_on_in_float32():
    modules = make_modules(t=9)
    half = Modules(
        6,
        modules.attention_in.half(),
        modules.attention_out.half(),
        modules.feed_forward_in.half(),
        modules.feed_forward_out.half(),
        modules.valid,
    )
    assert TransPrune().observe(half).dtype == torch.float32
    torch.testing.assert_close(
        TransPrune().observe(half), TransPrune().observe(modules), rtol=5e-3, atol=1e-5
    )


def test_a_token_of_zeros_does_no_harm():
    modules = make_modules(t=5)
    modules.attention_in[0, 2] = 0
    assert TransPrune().observe(modules).isfinite().all()


def by_hand(view, weight: float, iga: bool) -> torch.Tensor:
    """Twice the weighted mean of both shares; the first alone without the attention."""
    changed = [float(view.accumulated[v]) for v in view.visual]
    whole = sum(changed) + 1e-8
    if not iga:
        return torch.tensor([c / whole for c in changed])
    attention = view.probe.full_attention(view.layer)
    rows = view.question.tolist() or [int(view.visual[-1])]
    asked = [sum(float(h[r, v]) for h in attention for r in rows) for v in view.visual]
    asked = [a / (len(attention) * len(rows)) for a in asked]
    total = sum(asked) + 1e-8
    return torch.tensor(
        [
            2 * (weight * c / whole + (1 - weight) * a / total)
            for c, a in zip(changed, asked, strict=True)
        ]
    )


@given(
    seed=st.integers(0, 1000),
    visual=st.integers(2, 40),
    after=st.integers(0, 6),
    answer=st.integers(0, 3),
    weight=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    iga=st.booleans(),
    data=st.data(),
)
def test_the_score_is_the_sum_of_both_signals_each_as_a_share_of_the_image(
    seed, visual, after, answer, weight, iga, data
):
    k = data.draw(st.integers(0, visual - 1))
    seen = torch.rand(3 + visual + after + answer, generator=torch.Generator().manual_seed(seed))
    view = make_view(
        seed=seed,
        layer=9,
        before=3,
        visual=visual,
        n=50,
        after=after,
        answer=answer,
        accumulated=seen + 0.1,
    )
    kept = TransPrune(weight=weight, iga=iga).prune(view, k)
    expected = by_hand(view, weight, iga)
    assert kept.scores is not None
    torch.testing.assert_close(kept.scores, expected, rtol=1e-5, atol=0)
    order = sorted(range(visual), key=lambda i: (-float(kept.scores[i]), i))
    assert kept.index.tolist() == order[:k]
    rows = view.question.tolist() or [3 + visual - 1]
    assert view.probe.calls == ([("attention", 9, rows)] if iga else [])


def test_both_signals_weigh_the_same_by_default():
    view = make_view(layer=7, accumulated=torch.rand(31))
    kept = TransPrune().prune(view, 5)
    assert kept.scores is not None
    assert float(kept.scores.sum()) == pytest.approx(2, abs=1e-5)


def test_ties_go_to_the_lower_index():
    view = make_view(visual=6, accumulated=torch.ones(17))
    assert pruned(TransPrune(iga=False), view, 3) == [0, 1, 2]


def test_without_anything_observed_it_says_so():
    with pytest.raises(ValueError, match="TransPrune has observed no layer before layer 2"):
        TransPrune().prune(make_view(layer=2), 3)


@pytest.mark.parametrize(
    ("preset", "counts", "tera", "percent"),
    [
        (None, {7: 504, 9: 360, 12: 72}, 1.557, 40.8),
        ("high", {7: 504, 9: 360, 12: 72}, 1.557, 40.8),
        ("low", {7: 360, 9: 108, 12: 36}, 1.195, 31.3),
        ("ttv_only", {7: 504, 9: 360, 12: 72}, 1.557, 40.8),
    ],
)
def test_presets_cost_what_the_paper_prints(preset, counts, tera, percent):
    pruner = make_pruner("transprune", preset=preset)
    plan = pruner.plan(576, 32, None, float)
    assert plan == counts
    cost = prefill_multiply_adds(VICUNA_7B, tokens_by_layer(plan, 576, 32), "3ndm")
    assert round(cost / 1e12, 3) == tera
    assert round(100 * cost / prefill_multiply_adds(VICUNA_7B, 576, "3ndm"), 1) == percent


@pytest.mark.parametrize(("preset", "tera"), [("high", 8.330), ("low", 6.406)])
def test_presets_cost_what_the_paper_prints_on_2880_tokens(preset, tera):
    plan = make_pruner("transprune", preset=preset).plan(2880, 32, None, float)
    cost = prefill_multiply_adds(VICUNA_7B, tokens_by_layer(plan, 2880, 32), "3ndm")
    assert round(cost / 1e12, 3) == tera


def test_ttv_only_asks_for_no_attention():
    assert not make_pruner("transprune", preset="ttv_only").iga
    assert make_pruner("transprune", preset="ttv_only", schedule="7:0.5").schedule == "7:0.5"


def test_it_observes_six_layers_before_the_last_pruning_and_numbers_positions_anew():
    assert TransPrune().observes == {6, 7, 8, 9, 10, 11}
    assert TransPrune(observe_from=3, observe_to=3).observes == {3}
    assert TransPrune().positions == "compact"
    assert not TransPrune().looks_back
    assert TransPrune().first is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "0:0.5/7:0.25"}, "schedule must have layers >= 1"),
        ({"schedule": "6:0.5"}, "observe_from must be below the schedule's first layer 6"),
        ({"observe_from": 7}, "observe_from must be below the schedule's first layer 7.* got 7"),
        ({"observe_from": -1}, "observe_from must be an integer >= 0, got -1"),
        ({"observe_to": 5}, "observe_to must be an integer >= 6, got 5"),
        ({"weight": 1.5}, r"weight must be in \[0, 1\], got 1.5"),
        ({"weight": float("nan")}, r"weight must be in \[0, 1\], got nan"),
        ({"weight": "half"}, r"weight must be in \[0, 1\], got 'half'"),
        ({"weight": True}, r"weight must be in \[0, 1\], got True"),
        ({"formula": "both"}, "formula must be one of code, paper; got 'both'"),
        ({"iga": 1}, "iga must be true or false, got 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TransPrune(**settings)
