"""Counts of their own for images: thresholds on what picks add."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import logdet, otprune_kernel, real_tokens
from otprune import Signals, make_pruner
from otprune.adaptive import MOST, threshold_for
from otprune.cost import DecoderShape
from otprune.pruning import make_pruning
from otprune.serving import ServedPruning

GAINS = st.lists(
    st.lists(st.integers(0, 9), min_size=1, max_size=6).map(
        lambda values: torch.tensor(sorted(values, reverse=True)).float()
    ),
    min_size=1,
    max_size=5,
)


def kept_under(gains, threshold):
    return sum(max(1, int((one >= threshold).sum())) for one in gains) / len(gains)


@given(gains=GAINS, data=st.data())
def test_no_threshold_comes_nearer_to_the_mean_that_is_wanted(gains, data):
    most = sum(map(len, gains)) / len(gains)
    mean = data.draw(st.floats(1, most))
    found = kept_under(gains, threshold_for(gains, mean))
    every = torch.cat(gains).tolist()
    possible = [kept_under(gains, t) for t in (*every, *(value + 0.5 for value in every))]
    assert abs(found - mean) <= min(abs(one - mean) for one in possible) + 1e-9


def test_a_mean_that_no_threshold_reaches_is_refused():
    gains = [torch.tensor([3.0, 2.0]), torch.tensor([3.0])]
    with pytest.raises(ValueError, match=r"mean must be in 1\.\.1\.5, got 2"):
        threshold_for(gains, 2)
    with pytest.raises(ValueError, match="at least one image"):
        threshold_for([], 1)


def images():
    return [one[:n] for one, n in zip(real_tokens().values(), (60, 144, 100, 80), strict=False)]


def signals_of(tokens):
    generator = torch.Generator().manual_seed(0)
    return [
        Signals(cls_attention=torch.randn(3, len(one), generator=generator).softmax(1))
        for one in tokens
    ]


@pytest.mark.parametrize(
    ("name", "own"),
    [("otprune", {"gamma": 1.0}), ("otprune", {"gamma": "auto"}), ("divprune", {}),
     ("otprune", {"arithmetic": "reference"}), ("otprune", {"variant": "paper"}),
     ("fastervlm", {})],
)  # fmt: skip
def test_the_first_picks_are_kept_up_to_the_threshold(name, own):
    tokens = images()
    signals = signals_of(tokens)
    fixed = make_pruner(name, **own)
    found = fixed.gains_batch(tokens, [9] * len(tokens), signals)
    threshold = threshold_for([one.gains for one in found], 9)
    adaptive = make_pruner(name, **own, adaptive=True, threshold=threshold)
    kept = adaptive.select_batch(tokens, 9, signals=signals)
    for one, image, picks, signal in zip(kept, tokens, found, signals, strict=True):
        assert len(picks.order) == min(len(image), MOST * 9)
        assert bool((picks.gains.diff() <= 0).all())
        count = max(1, sum(gain >= threshold for gain in picks.gains.tolist()))
        assert one.tolist() == sorted(picks.order[:count].tolist())
        alone = adaptive.select(image, 9, signals=signal)
        assert alone.tolist() == one.tolist()
    counts = [len(one) for one in kept]
    assert sum(counts) / len(counts) == pytest.approx(9, abs=0.25)
    assert len(set(counts)) > 1
    assert (
        fixed.rank(tokens[0], 5, signals[0]).tolist()
        == adaptive.rank(tokens[0], 5, signals[0]).tolist()
    )


def test_gains_of_otprune_sum_to_its_log_determinant():
    tokens = images()[1]
    order, gains = make_pruner("otprune", accumulate="float64").gains(tokens, 6)
    kernel = otprune_kernel(tokens)
    for count in range(1, len(order) + 1):
        value = logdet(kernel, order[:count].tolist())
        torch.testing.assert_close(gains[:count].sum(), torch.as_tensor(value).double())


@pytest.mark.parametrize("k", [3, 200])
def test_gains_of_divprune_are_distances_to_the_nearest_earlier_pick(k):
    tokens = real_tokens()["coffee"].double()
    order, gains = make_pruner("divprune", accumulate="float64").gains(tokens, k)
    units = tokens / tokens.norm(dim=1, keepdim=True)
    picked = units[order]
    expected = [2.0] + [float((1 - picked[:i] @ picked[i]).min()) for i in range(1, len(picked))]
    torch.testing.assert_close(
        gains, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9
    )


def test_gains_of_fastervlm_are_the_attention_not_on_earlier_picks():
    attention = torch.tensor([[1.0, 4.0, 2.0, 3.0], [1.0, 4.0, 2.0, 3.0]])
    signal = Signals(cls_attention=attention)
    order, gains = make_pruner("fastervlm").gains(torch.randn(4, 3), 1, signal)
    assert order.tolist() == [1, 3, 2, 0]
    torch.testing.assert_close(gains.double(), torch.tensor([1.0, 0.6, 0.3, 0.1]).double())
    # It takes three tokens to have more than 0.75 of the attention.
    kept = make_pruner("fastervlm", adaptive=True, threshold=0.25).select(
        torch.randn(4, 3), 1, signals=signal
    )
    assert kept.tolist() == [1, 2, 3]


@pytest.mark.parametrize(("threshold", "count"), [(1e9, 1), (1e-30, MOST * 5)])
def test_one_token_at_least_is_kept_and_some_times_the_budget_at_most(threshold, count):
    tokens = images()[0]
    for name in ("otprune", "divprune"):
        pruner = make_pruner(name, adaptive=True, threshold=threshold)
        assert len(pruner.select(tokens, 5)) == count
        assert pruner.select(tokens, len(tokens)).tolist() == list(range(len(tokens)))


@given(factor=st.sampled_from([2.0**-6, 8.0]), seed=st.integers(0, 20))
@settings(max_examples=10)
def test_scale_and_order_of_the_tokens_do_not_change_counts(factor, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(30, 8, generator=generator)
    shuffled = torch.randperm(30, generator=generator)
    for name, threshold in (("otprune", 0.05), ("divprune", 0.5)):
        pruner = make_pruner(name, accumulate="float64", adaptive=True, threshold=threshold)
        kept = pruner.select(tokens, 6)
        assert pruner.select(tokens * factor, 6).tolist() == kept.tolist()
        other = shuffled[pruner.select(tokens[shuffled], 6)]
        assert sorted(other.tolist()) == kept.tolist()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"adaptive": True}, "threshold must be a finite number > 0, got 0"),
        ({"threshold": 0.1}, "a threshold needs adaptive=True"),
        ({"adaptive": 1, "threshold": 0.1}, "adaptive must be true or false, got 1"),
        ({"adaptive": True, "threshold": float("nan")}, "threshold must be a finite number > 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(own, message):
    for name in ("otprune", "divprune", "fastervlm"):
        with pytest.raises(ValueError, match=message):
            make_pruner(name, **own)


def test_counts_of_their_own_are_refused_where_they_cannot_be():
    own = {"adaptive": True, "threshold": 0.1}
    with pytest.raises(ValueError, match="layer must be 0 for OTPrune with adaptive=True"):
        make_pruning("otprune", k=5, layer=2, **own)
    with pytest.raises(ValueError, match="does not go with target"):
        make_pruning("divprune", k=5, match="flops", **own)
    with pytest.raises(ValueError, match="does not go with compat"):
        make_pruning("otprune", k=5, compat="reference", **own)
    with pytest.raises(ValueError, match="the count is not known before an image is encoded"):
        ServedPruning("divprune", 0.5, own)
    with pytest.raises(ValueError, match="counts differ between images"):
        make_pruner("otprune", **own).select(torch.randn(2, 9, 4), 3)
    tiles = Signals(cls_attention=torch.rand(1, 4), tiles=torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="needs images of one tile"):
        make_pruner("fastervlm", **own).select(torch.randn(4, 3), 2, signals=tiles)


def test_the_plan_of_a_threshold_is_its_budget():
    shape = DecoderShape(8, 16, 4, 2)
    fixed, adaptive = (
        make_pruning("otprune", keep_ratio=0.25, **own)
        for own in ({}, {"adaptive": True, "threshold": 0.1})
    )
    for n in itertools.islice(itertools.count(4, 7), 5):
        assert fixed.plan(n, shape) == adaptive.plan(n, shape)
