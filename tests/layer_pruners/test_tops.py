import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layer_pruners.views import make_view, pruned, seeded
from otprune import LayerPruner, Signals, make_pruner
from otprune.layer_pruners.sparsevlm import text_raters
from otprune.layer_pruners.tops import TOPS, TOPSStage, above_mean, token_set
from otprune.schedule import tokens_by_layer


def plain_set(tokens, relevance, k, alpha, lam, normalise):
    rows = tokens.double().tolist()
    n = len(rows)
    length = [math.sqrt(sum(x * x for x in row)) for row in rows]
    close = [
        [
            sum(x * y for x, y in zip(rows[i], rows[j], strict=True)) / (length[i] * length[j])
            for j in range(n)
        ]
        for i in range(n)
    ]
    relevance = relevance.double().tolist()

    def normal(values):
        if normalise == "mean":
            mean = sum(values) / len(values)
            return [x / mean if mean > 0 else 0 for x in values]
        low, high = min(values), max(values)
        return [(x - low) / (high - low) if high > low else 0 for x in values]

    picks = [max(range(n), key=lambda i: (relevance[i], -i))]
    while len(picks) < k:
        left = [i for i in range(n) if i not in picks]
        best = [max(close[j][i] for j in picks) for i in range(n)]
        diversity = [max(0.0, 1 - best[i]) for i in left]
        coverage = [sum(max(0.0, close[i][j] - best[j]) for j in left) for i in left]
        parts = (
            normal([relevance[i] for i in left]),
            normal(diversity),
            normal(coverage),
        )
        score = [r + alpha * d + lam * c for r, d, c in zip(*parts, strict=True)]
        picks.append(left[max(range(len(left)), key=lambda i: (score[i], -i))])
    return picks


def drawn(n, d, seed):
    tokens = torch.randn(n, d, generator=seeded(seed, 1)) + 0.5
    return tokens, torch.rand(n, generator=seeded(seed, 2)) ** 3


@pytest.mark.parametrize("normalise", ["mean", "minmax"])
@pytest.mark.parametrize(("alpha", "lam"), [(0.5, 0.5), (0.5, 1.0), (0.0, 2.0), (3.0, 0.0)])
@pytest.mark.parametrize("seed", range(3))
def test_the_picks_are_those_of_a_plain_implementation(normalise, alpha, lam, seed):
    tokens, relevance = drawn(50, 12, seed)
    found = token_set(tokens, relevance, 30, alpha, lam, normalise)
    assert found.tolist() == plain_set(tokens, relevance, 30, alpha, lam, normalise)


@pytest.mark.parametrize("normalise", ["mean", "minmax"])
def test_relevance_alone_is_a_ranking_by_relevance(normalise):
    tokens, relevance = drawn(40, 8, 5)
    found = token_set(tokens, relevance, 40, 0, 0, normalise)
    assert found.tolist() == relevance.argsort(descending=True, stable=True).tolist()


def test_diversity_alone_is_farthest_point_selection():
    tokens, _ = drawn(40, 8, 6)
    relevance = torch.ones(40)
    relevance[7] += 1e-6
    found = token_set(tokens, relevance, 20, 1e6, 0, "minmax").tolist()
    units = torch.nn.functional.normalize(tokens.double())
    picks = [7]
    while len(picks) < 20:
        distance = (1 - units @ units[picks].T).amin(1)
        picks.append(int(distance.argmax()))
    assert found == picks


def test_coverage_alone_is_greedy_facility_location_over_what_is_left():
    tokens, _ = drawn(30, 8, 7)
    close = torch.nn.functional.cosine_similarity(tokens[:, None], tokens[None], dim=-1).double()
    relevance = torch.ones(30)
    relevance[3] += 1e-6
    found = token_set(tokens, relevance, 15, 0, 1e6, "minmax").tolist()
    picks = [3]
    while len(picks) < 15:
        left = [i for i in range(30) if i not in picks]
        best = close[picks].amax(0)
        gains = [float((close[i] - best).clamp(min=0)[left].sum()) for i in left]
        picks.append(left[gains.index(max(gains))])
    assert found == picks


@given(
    n=st.integers(1, 12),
    d=st.integers(1, 4),
    seed=st.integers(0, 50),
    normalise=st.sampled_from(["mean", "minmax"]),
    copies=st.integers(1, 3),
)
def test_picks_are_distinct_and_nested_even_among_duplicates(n, d, seed, normalise, copies):
    tokens, relevance = drawn(n, d, seed)
    tokens, relevance = tokens.repeat(copies, 1), relevance.repeat(copies)
    picks = token_set(tokens, relevance, n * copies, 0.5, 0.5, normalise).tolist()
    assert sorted(picks) == list(range(n * copies))
    for k in range(1, n * copies):
        assert token_set(tokens, relevance, k, 0.5, 0.5, normalise).tolist() == picks[:k]


@pytest.mark.parametrize("normalise", ["mean", "minmax"])
def test_criteria_that_are_zero_for_all_leave_the_lower_index(normalise):
    picks = token_set(torch.ones(6, 3), torch.zeros(6), 4, 0.5, 0.5, normalise)
    assert picks.tolist() == [0, 1, 2, 3]


def test_stage_one_selects_by_the_cls_attention():
    tokens, _ = drawn(40, 8, 8)
    attention = torch.rand(4, 40, generator=seeded(3))
    signals = Signals(cls_attention=attention)
    for heads, relevance in (("mean", attention.mean(0)), ("max", attention.amax(0))):
        picks = TOPSStage(heads=heads, lam=0.7).rank(tokens, 20, signals).tolist()
        assert picks == plain_set(tokens, relevance, 20, 0.5, 0.7, "mean")


def test_stage_one_needs_the_cls_attention():
    with pytest.raises(ValueError, match="TOPSStage needs signals.cls_attention"):
        TOPSStage().select(torch.rand(4, 2), k=2)


def test_the_first_stage_is_that_of_the_schedule_and_the_settings():
    pruner = TOPS(first_alpha=0.1, first_lam=0.2, normalise="minmax", first_heads="max")
    assert pruner.first == TOPSStage(0.1, 0.2, "minmax", "max")
    assert TOPS(schedule="12:64").first is None
    assert TOPS().first == TOPSStage(0.5, 0.5, "mean", "mean")


@pytest.mark.parametrize(
    ("preset", "n", "layers", "mean"),
    [
        ("table17-128", 576, 32, 128.0),
        ("table17-64", 576, 32, 64.0),
        ("table17-32", 576, 32, 32.0),
        ("table9-128", 576, 32, 152.0),
        ("table9-64", 576, 32, 76.0),
        ("table9-32", 576, 32, 38.0),
        ("next-640", 2880, 32, 640.0),
        ("next-320", 2880, 32, 320.0),
        ("next-160", 2880, 32, 160.0),
        ("13b-128", 576, 40, 128.0),
        ("13b-64", 576, 40, 64.0),
        ("13b-32", 576, 40, 32.0),
        ("next-13b-640", 2880, 40, 640.0),
        ("next-13b-320", 2880, 40, 320.0),
        ("next-13b-160", 2880, 40, 160.0),
    ],
)
def test_presets_leave_so_many_tokens_on_average(preset, n, layers, mean):
    pruner = make_pruner("tops", preset=preset)
    entering = tokens_by_layer(pruner.plan(n, layers, None, float), n, layers)
    assert sum(entering) / layers == mean


def test_every_preset_is_tested_above_and_the_default_is_table_17():
    assert len(TOPS.presets) == 15
    assert TOPS() == make_pruner("tops", preset="table17-128")


def plain_relevance(view, layer, rows):
    attention = view.probe.full_attention(layer).double()
    return [
        sum(float(head[row, column]) for head in attention for row in rows)
        / (len(attention) * len(rows))
        for column in view.visual
    ]


def raters_of(view, layer, raters):
    question = view.question.tolist()
    if raters == "attention":
        mass = [sum(plain_relevance(view, layer, [row])) for row in question]
        return [
            row for row, value in zip(question, mass, strict=True) if value > sum(mass) / len(mass)
        ]
    if raters == "similarity":
        found = text_raters(view.hidden[view.visual], view.hidden[view.question])
        return [question[i] for i in found]
    return question if raters == "all" else question[-1:]


@pytest.mark.parametrize("attention", ["next", "previous"])
@pytest.mark.parametrize("raters", ["attention", "similarity", "all", "last"])
def test_stage_two_is_that_of_a_plain_implementation(attention, raters):
    pruner = TOPS(attention=attention, raters=raters, alpha=0.4, lam=0.8)
    view = make_view(layer=12, visual=40, n=99, after=9, answer=2)
    layer = 11 if attention == "previous" else 12
    relevance = plain_relevance(view, layer, raters_of(view, layer, raters))
    kept = pruner.prune(view, 16)
    assert {asked[1] for asked in view.probe.calls} == {layer}
    assert kept.scores.tolist() == pytest.approx(relevance, rel=1e-5)
    hidden = view.hidden[view.visual]
    picks = plain_set(hidden, torch.tensor(relevance), 16, 0.4, 0.8, "mean")
    assert kept.index.tolist() == picks


def test_raters_differ_between_the_choices():
    view = make_view(layer=12, visual=40, after=12)
    chosen = [tuple(raters_of(view, 12, r)) for r in ("attention", "similarity", "all", "last")]
    assert len(set(chosen)) == 4


@pytest.mark.parametrize("raters", ["attention", "similarity", "all", "last"])
def test_without_a_question_the_last_position_rates(raters):
    view = make_view(layer=12, visual=10, after=0)
    scores = TOPS(raters=raters).prune(view, 3).scores.tolist()
    assert scores == pytest.approx(plain_relevance(view, 12, [14]), rel=1e-5)


def test_all_rate_if_none_is_above_the_mean():
    assert above_mean(torch.tensor([0.25, 0.25])).tolist() == [0, 1]
    assert above_mean(torch.tensor([1.0, 3.0, 2.0])).tolist() == [1]


@given(v=st.integers(2, 20), seed=st.integers(0, 9), data=st.data())
def test_exactly_k_tokens_stay(v, seed, data):
    k = data.draw(st.integers(0, v - 1))
    view = make_view(visual=v, seed=seed)
    assert len(pruned(TOPS(), view, k)) == k


def test_half_precision_states_are_compared_in_float32():
    view = make_view(visual=30, layer=12)
    half = replace(view, hidden=view.hidden.half())
    again = replace(view, hidden=view.hidden.half().float())
    assert pruned(TOPS(), half, 10) == pruned(TOPS(), again, 10)


def test_it_is_a_layer_pruner_with_compact_positions():
    pruner = make_pruner("tops")
    assert isinstance(pruner, LayerPruner)
    assert pruner.positions == "compact"
    assert not pruner.looks_back
    assert TOPS(attention="previous").looks_back


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "0:100"}, "schedule must have a layer after layer 0, got '0:100'"),
        ({"alpha": -1}, "alpha must be a finite number >= 0, got -1"),
        ({"lam": float("inf")}, "lam must be a finite number >= 0, got inf"),
        ({"first_alpha": "x"}, "first_alpha must be"),
        ({"first_lam": True}, "first_lam must be"),
        ({"normalise": "max"}, "normalise must be one of mean, minmax; got 'max'"),
        ({"first_heads": "sum"}, "first_heads must be one of mean, max; got 'sum'"),
        ({"raters": "some"}, "raters must be one of attention, similarity, all, last"),
        ({"attention": "both"}, "attention must be one of next, previous; got 'both'"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_pruner("tops", **settings)


@pytest.mark.parametrize(
    "settings", [{"alpha": -1}, {"lam": -0.1}, {"normalise": "x"}, {"heads": "x"}]
)
def test_impossible_settings_of_stage_one_are_refused(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
        TOPSStage(**settings)
