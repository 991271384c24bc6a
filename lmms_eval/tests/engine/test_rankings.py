"""Ranked once: the same picks for all budgets and questions, and no ranking done twice."""

from dataclasses import dataclass, field
from math import isqrt
from typing import ClassVar

import pytest
import torch

from helpers import PICTURES, TINY_ANYRES, request, tiny
from otprune import Merger, Mixture, Selector, Signals, make_pruner
from otprune.cost import DecoderShape
from otprune.pruning import make_pruning
from otprune.registry import SELECTORS
from otprune.selectors.otprune import OTPrune
from otprune.signals import TEXT_SIGNALS, TOKEN_AXIS, signal_shape
from otprune_lmms.engine import Engine
from otprune_lmms.engine.rankings import Rankings
from otprune_lmms.pruning_config import PruningConfig

SHAPE = DecoderShape(hidden=8, feed_forward=20, layers=4, heads=2)
BUDGETS = (5, 12, 40)
SIZES = (64, 64, 49, 64)
NAMES = (7, 8, 9, 7)
"""The last image is the first one again."""


def images(dtype=torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    found = [torch.randn(n, 16, generator=generator).to(dtype) for n in SIZES[:3]]
    return [*found, found[0].clone()]


def signals() -> list[Signals]:
    """All that a method may ask for of an image alone; of a square grid, one tile."""
    found = {}
    for n, name in zip(SIZES, NAMES, strict=True):
        random = torch.Generator().manual_seed(name)
        final = torch.rand(n, generator=random)
        made = {
            "cls_attention": torch.rand(2, n, generator=random).softmax(1),
            "encoder_keys": torch.randn(n, 8, generator=random),
            "final_cls_attention": final / final.sum(),
            "final_keys": torch.randn(n, 8, generator=random),
            "features": torch.randn(n, 8, generator=random),
            "cls_features": torch.randn(1, 8, generator=random),
        }
        more = torch.Generator().manual_seed(100 + name)
        for other in TOKEN_AXIS:
            if other not in made and other != "tiles":
                made[other] = torch.randn(signal_shape(other, n, 8), generator=more)
        found[name] = Signals(grid=(isqrt(n), isqrt(n)), image_id=name, **made)
    return [found[name] for name in NAMES]


@dataclass(frozen=True)
class Counting(Selector):
    """Ranks by the first channel, and counts."""

    keeps_prefixes: bool = True
    calls: list = field(default_factory=list, compare=False)

    @property
    def nested(self) -> bool:
        return self.keeps_prefixes

    def _rank_image(self, tokens, k, signals):
        self.calls.append((signals.image_id, k))
        return tokens[:, 0].argsort(descending=True, stable=True)[:k]


@dataclass(frozen=True)
class AsksTheText(Counting):
    needs: ClassVar[frozenset[str]] = frozenset({"question"})


@dataclass(frozen=True)
class Merging(Merger):
    def _merge_image(self, tokens, k, signals):
        return Mixture(places=torch.arange(k), tokens=tokens[:k])


def orders(**settings) -> Rankings:
    return Rankings(SHAPE, **settings)


def bound(rankings, selector, k, **where):
    return rankings.bind(make_pruning(selector, k=k, **where), None).stages[0].method


METHODS = [
    *((name, {}) for name in sorted(SELECTORS)),
    ("otprune", {"preset": "released"}),
    ("otprune", {"preset": "paper"}),
    ("random", {"seed": 5}),
    ("cdpruner", {"relevance": "none"}),
]
METHODS = [one for one in METHODS if make_pruner(one[0], **one[1]).needs.isdisjoint(TEXT_SIGNALS)]


@pytest.mark.parametrize("expected", [True, False])
@pytest.mark.parametrize(("name", "settings"), METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_method_keeps_what_it_keeps_alone(name, settings, dtype, expected):
    method, rankings = make_pruner(name, **settings), orders()
    if expected:
        rankings.expect(make_pruning(method, k=k) for k in BUDGETS)
    for k in (*BUDGETS, 49, 64, 12):
        budgets = [min(k, n) for n in SIZES]
        found = bound(rankings, method, k).select_batch(images(dtype), k=budgets, signals=signals())
        wanted = method.select_batch(images(dtype), k=budgets, signals=signals())
        assert [one.tolist() for one in found] == [one.tolist() for one in wanted]


def test_a_nested_method_ranks_an_image_once_for_all_budgets():
    method, rankings = Counting(), orders()
    rankings.expect(
        [make_pruning(method, k=k) for k in BUDGETS] + [None, make_pruning("random", k=50)]
    )
    for k in BUDGETS:
        bound(rankings, method, k).select_batch(images(), k=[k] * 4, signals=signals())
    assert method.calls == [(7, 40), (8, 40), (9, 40)]
    assert rankings.ranked == 3


def test_ratios_are_budgets_of_each_image_s_own_size():
    method, rankings = Counting(), orders()
    rankings.expect(make_pruning(method, keep_ratio=ratio) for ratio in (0.1, 0.5, 1.0))
    bound(rankings, method, 5).select_batch(images(), k=[6, 6, 5, 6], signals=signals())
    assert method.calls == [(7, 32), (8, 32), (9, 24)]


def test_budgets_of_all_layers_are_what_they_leave_before_the_first():
    method, rankings = Counting(), orders()
    rankings.expect(
        [make_pruning(method, k=9), make_pruning(method, keep_ratio=0.5, match="average")]
    )
    bound(rankings, method, 5).select_batch(images()[:1], k=[5], signals=signals()[:1])
    assert method.calls == [(7, 32)]
    flops = make_pruning(Counting(), keep_ratio=0.5, match="flops")
    assert 32 < flops.plan(64, SHAPE)[0] < 64


def test_what_is_bound_needs_what_the_method_needs():
    @dataclass(frozen=True)
    class Keyed(Counting):
        needs: ClassVar[frozenset[str]] = frozenset({"encoder_keys"})

    assert bound(orders(), Keyed(), 5).needs == {"encoder_keys"}


def test_what_was_not_expected_is_ranked_anew_and_then_serves_the_smaller():
    method, rankings = Counting(), orders()
    for k in (12, 5, 40, 12):
        bound(rankings, method, k).select_batch(images()[:1], k=[k], signals=signals()[:1])
    assert method.calls == [(7, 12), (7, 40)]


def test_a_method_that_is_not_nested_ranks_once_for_each_budget():
    method, rankings = Counting(keeps_prefixes=False), orders()
    rankings.expect(make_pruning(method, k=k) for k in BUDGETS)
    for k in (*BUDGETS, *BUDGETS):
        bound(rankings, method, k).select_batch(images(), k=[k] * 4, signals=signals())
    assert method.calls == [(name, k) for k in BUDGETS for name in (7, 8, 9)]


def test_views_of_an_image_and_settings_of_a_method_are_kept_apart():
    rankings, image = orders(), images()[:1]
    one, other = Counting(), Counting(keeps_prefixes=False)
    for method in (one, other):
        for where in ({}, {"keep_newlines": True}):
            bound(rankings, method, 5, **where).select_batch(image, k=[5], signals=signals()[:1])
        pruning = rankings.bind(make_pruning(method, k=5), "pad")
        pruning.stages[0].method.select_batch(image, k=[5], signals=signals()[:1])
        assert len(method.calls) == 3


@pytest.mark.parametrize("limit", [0, 100])
def test_what_is_not_held_any_more_is_ranked_anew(limit):
    method, rankings = Counting(), orders(limit=limit)
    for _ in range(2):
        kept = bound(rankings, method, 5).select_batch(images(), k=[5] * 4, signals=signals())
        wanted = Counting().select_batch(images(), k=[5] * 4, signals=signals())
        assert [one.tolist() for one in kept] == [one.tolist() for one in wanted]
    assert len(method.calls) > 3


def test_images_without_a_name_and_other_calls_go_to_the_method_itself():
    method, rankings = Counting(), orders()
    selector = bound(rankings, method, 5)
    for _ in range(2):
        selector.select_batch(images()[:1], k=[5], signals=[Signals()])
        selector.select_batch(images()[:1], keep_ratio=0.1, signals=signals()[:1])
        assert (
            selector.select(images()[0], k=5).tolist() == method.select(images()[0], k=5).tolist()
        )
    assert rankings.ranked == 0
    with pytest.raises(ValueError, match="k must be in 1..n = 1..64, got 65"):
        selector.select_batch(images()[:1], k=[65], signals=signals()[:1])
    with pytest.raises(ValueError, match="finite"):
        selector.select_batch([images()[0] * float("nan")], k=[5], signals=signals()[:1])


def test_stages_that_see_more_than_the_image_are_left_alone():
    rankings = orders()
    assert rankings.bind(None, None) is None
    for pruning in (
        make_pruning("otprune", k=5, layer=2),
        make_pruning("otprune", k=5, compat="reference"),
        make_pruning(AsksTheText(), k=5),
        make_pruning(Merging(), k=5),
        make_pruning("fastv", k=50),
        make_pruning("tops", schedule="0:0.5/2:0.25"),
    ):
        rankings.expect([pruning])
        assert rankings.bind(pruning, None) is pruning
    off = orders(active=False)
    assert off.bind(make_pruning("otprune", k=5), None) == make_pruning("otprune", k=5)


CONFIGS = [
    *(PruningConfig.make("otprune", ratio) for ratio in (0.05, 0.2, 0.098)),
    *(PruningConfig.make("uniform", ratio) for ratio in (0.05, 0.2)),
    PruningConfig.make("otprune", 0.1, layer=2),
]


def asked(names=PICTURES, **more):
    """Two requests about each image, and one about two of them."""
    questions = ("What is it?", "Is it a dog?")
    found = [
        request(2 * i + j, question, (name,), generation={"max_new_tokens": 3}, **more)
        for i, name in enumerate(names)
        for j, question in enumerate(questions)
    ]
    return [*found, request(90, "Which?", names[:2], generation={"max_new_tokens": 3})]


def run(model, sweep, requests, **settings):
    engine = Engine(model, model_name="tiny", workers=0, progress=False, batch_size=4, **settings)
    answers = engine.run(requests, sweep)
    texts = {(c.label, r.doc_id): (a.text, a.kept, a.candidates) for (c, r), a in answers.items()}
    return texts, answers.counts


def test_a_sweep_answers_the_same_and_ranks_each_image_once_for_each_method(monkeypatch):
    plain, counts = run(tiny(), CONFIGS, asked(PICTURES[:3]), rank_once=False)
    assert counts.ranked == 0
    calls = []
    own = OTPrune._rank_images

    def counted(self, tokens, k, signals):
        calls.extend((one.image_id, count) for one, count in zip(signals, k, strict=True))
        return own(self, tokens, k, signals)

    monkeypatch.setattr(OTPrune, "_rank_images", counted)
    once, counts = run(tiny(), CONFIGS, asked(PICTURES[:3]))
    assert once == plain
    before = [call for call in calls if call[1] == 115]
    assert len(before) == len(set(before)) == 3, "each image once, at the largest ratio"
    # At layer 2 the tokens have seen the question: eight images of seven questions.
    assert sorted(count for _, count in calls) == [58] * 8 + [115] * 3
    assert counts.ranked == 3 + 2 * 3


def test_newline_tokens_beside_the_budget_are_another_view():
    requests = [request(0, pictures=("port.png",), generation={"max_new_tokens": 2})]
    sweep = [
        PruningConfig.make("otprune", ratio, keep_newlines=newlines)
        for newlines in (False, True)
        for ratio in (0.05, 0.2)
    ]
    once, counts = run(tiny(TINY_ANYRES), sweep, requests)
    assert once == run(tiny(TINY_ANYRES), sweep, requests, rank_once=False)[0]
    assert counts.ranked == 2


def test_a_method_with_counts_of_their_own_ranks_each_time():
    rankings = Rankings(SHAPE)
    own = {"adaptive": True, "threshold": 0.05}
    pruning = make_pruning("otprune", k=12, **own)
    rankings.expect([pruning])
    assert rankings.bind(pruning, None) is pruning
