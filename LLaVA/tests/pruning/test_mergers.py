"""Merged tokens before the language model, against sums written out by hand."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pytest
import torch

from helpers import largest
from masked import ROWS, model_of
from otprune import Merger, Mixture, make_pruner
from otprune.pruning import Pruning, Stage, Trace, make_pruning
from recomputed import recompute
from small_images import IMAGE, alone, small_image, small_request, with_newlines

NAMES = ("visionzip", "prumerge", "tome", "pooling")
NEVER = {"eos_token_id": [999999], "do_sample": False}
PICTURES = [row for row in ROWS if IMAGE in row]


@dataclass(frozen=True, slots=True)
class Fixed(Merger):
    """Mixes by weights drawn from a seed; some tokens stand in no place, some share one."""

    kind: str = "tokens"

    @property
    def space(self) -> Literal["tokens", "features"]:
        return "tokens" if self.kind == "tokens" else "features"

    @property
    def needs(self):
        return {
            "tokens": frozenset(),
            "features": frozenset({"features"}),
            "with cls": frozenset({"features", "cls_features"}),
        }[self.kind]

    def weights(self, n: int, k: int) -> torch.Tensor:
        columns = n + (self.kind == "with cls")
        return torch.rand(k, columns, generator=torch.Generator().manual_seed(n)) / n

    def _merge_image(self, tokens, k, signals):
        places = torch.arange(k)
        places[0] = -1
        places[2] = places[1]
        return Mixture(places, self.weights(len(tokens), k))


@dataclass(frozen=True, slots=True)
class Given(Merger):
    """New tokens that are no mixture."""

    value: float = 0.5
    needs: ClassVar = frozenset()

    def _merge_image(self, tokens, k, signals):
        return Mixture(torch.full((k,), -1), tokens=torch.full((k, tokens.shape[1]), self.value))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def prepared(pruning, rows, make: Callable = small_image, trace=None):
    model, request = model_of(), small_request(rows, make=make)
    batch = model.prepare(
        request["input_ids"], request["attention_mask"], None, request["visual"],
        pruning=pruning, side="left", trace=trace,
    )  # fmt: skip
    return model, request["visual"], batch.batch


def projected(model, features: torch.Tensor) -> torch.Tensor:
    """The projector, written out: two linear maps with GELU between."""
    first, second = model.model.mm_projector[0], model.model.mm_projector[2]
    hidden = torch.nn.functional.gelu(features @ first.weight.T + first.bias)
    return hidden @ second.weight.T + second.bias


@pytest.mark.parametrize("kind", ["tokens", "features", "with cls"])
def test_what_enters_is_the_mixture_and_features_are_mixed_before_the_projector(kind):
    method = Fixed(kind)
    trace = Trace()
    model, visual, batch = prepared(Pruning((Stage(method, k=9),)), PICTURES[:1], trace=trace)
    image = visual[0]
    weights = method.weights(len(image), 9)
    parts = {"tokens": [image.tokens], "features": [image.signals.features]}
    parts["with cls"] = [image.signals.features, image.signals.cls_features]
    want = weights @ torch.cat(parts[kind])
    if kind != "tokens":
        want = projected(model, want)
    assert largest(batch.embeds[0, 4:13] - want) <= 1e-5
    assert batch.lengths == [8 + 9]
    assert batch.position_ids.tolist() == [list(range(17))]
    assert trace.kept[0][0].tolist() == [-1, 1, 1, *range(3, 9)]
    assert torch.equal(
        batch.embeds[0, 13:], model.model.embed_tokens(torch.tensor([30, 31, 32, 33]))
    )


def test_under_original_positions_a_token_has_that_of_its_place():
    pruning = Pruning((Stage(Fixed(), k=6),), positions="original")
    _, visual, batch = prepared(pruning, PICTURES[1:2])
    first, second = len(visual[0]), len(visual[1])
    image = [0, 1, 1, 3, 4, 5]
    assert batch.position_ids[0].tolist() == [
        0, *(1 + i for i in image), 1 + first, 2 + first, *(3 + first + i for i in image),
        3 + first + second,
    ]  # fmt: skip
    # What stands in no place is numbered behind the image's own tokens.
    assert batch.token_of[0, 1:7].tolist() == [first, 1, 1, 3, 4, 5]
    assert (batch.image_of[0] == 1).sum() == 6


@pytest.mark.parametrize("kind", ["tokens", "with cls"])
def test_newlines_kept_beside_the_budget_follow_and_are_mixed_into_nothing(kind):
    method = Fixed(kind)
    trace = Trace()
    pruning = Pruning((Stage(method, k=7),), keep_newlines=True)
    model, visual, batch = prepared(pruning, PICTURES[:1], with_newlines, trace)
    image = visual[0]
    ends = image.newline.nonzero()[:, 0]
    patches = (~image.newline).nonzero()[:, 0]
    weights = method.weights(len(patches), 7)
    if kind == "tokens":
        want = weights @ image.tokens[patches]
    else:
        pool = torch.cat([image.signals.features[patches], image.signals.cls_features])
        want = projected(model, weights @ pool)
    assert largest(batch.embeds[0, 4:11] - want) <= 1e-5
    assert torch.equal(batch.embeds[0, 11 : 11 + len(ends)], image.tokens[ends])
    places = [-1, *(int(patches[i]) for i in (1, 1, 3, 4, 5, 6))]
    assert trace.kept[0][0].tolist() == [*places, *ends.tolist()]


def test_a_share_of_patches_is_counted_without_the_newlines():
    trace = Trace()
    pruning = make_pruning(Fixed(), keep_ratio=0.5, keep_newlines=True)
    _, visual, _ = prepared(pruning, PICTURES[:1], with_newlines, trace)
    ends = int(visual[0].newline.sum())
    assert len(trace.kept[0][0]) == round((len(visual[0]) - ends) * 0.5) + ends


def test_tokens_that_are_no_mixture_enter_as_they_are():
    _, _, batch = prepared(make_pruning(Given(), k=5), PICTURES[:1])
    assert (batch.embeds[0, 4:9] == 0.5).all()
    assert (batch.token_of[0, 4:9] >= 48).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_merged_images_is_its_rows_alone(name):
    model, pruning = model_of(), make_pruning(name, keep_ratio=0.3)
    together = model.generate(**small_request(ROWS), pruning=pruning, max_new_tokens=3, **NEVER)
    for row, one in enumerate(alone(ROWS)):
        own = model.generate(**one, pruning=pruning, max_new_tokens=3, **NEVER)
        assert own[0].tolist() == together[row].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_never_more_tokens_than_the_budget(name):
    trace = Trace()
    _, visual, batch = prepared(make_pruning(name, k=11), ROWS, trace=trace)
    counts = [len(kept) for kept in trace.kept[0]]
    assert len(counts) == len(visual)
    # 11 cells of a raster are no rectangle: pooling makes fewer.
    assert all(count == 11 for count in counts) or name == "pooling"
    assert all(0 < count <= 11 for count in counts)
    text = [len(row) - row.count(IMAGE) for row in ROWS]
    sums = [counts[0], counts[1] + counts[2], 0, counts[3]]
    assert batch.lengths == [a + b for a, b in zip(text, sums, strict=True)]
    assert trace.lengths == [batch.lengths] * 4


INSIDE = {
    "fastv": make_pruner("fastv", schedule="2:0.4"),
    "transprune": make_pruner(
        "transprune", schedule="1:0.8/2:0.5/3:0.2", observe_from=0, observe_to=2
    ),
    "sparsevlm": make_pruner("sparsevlm", schedule="1:9/3:5"),
    "vtw": make_pruner("vtw", schedule="2:0"),
    "tops": make_pruner("tops", schedule="1:8/3:3"),
}
FIRST = {
    "visionzip": make_pruner("visionzip"),
    "prumerge, twice the same": make_pruner("prumerge", preset="plus-training"),
    "fixed": Fixed("with cls"),
    "pooling": make_pruner("pooling"),
    "otprune": make_pruner("otprune"),
    "vispruner": make_pruner("vispruner"),
}


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("first", FIRST)
def test_a_layer_pruner_goes_on_with_what_a_merger_has_made(first, inside):
    model = model_of()
    pruning = Pruning((Stage(FIRST[first], k=16),), pruner=INSIDE[inside])
    request = small_request(ROWS)
    trace = Trace()
    with torch.no_grad():
        logits = model(**request, pruning=pruning, trace=trace).logits
    together = model.generate(**request, pruning=pruning, max_new_tokens=3, **NEVER)
    image = 0
    for row, (one, ids) in enumerate(zip(alone(ROWS), ROWS, strict=True)):
        if IMAGE not in ids:
            continue
        count = len(one["visual"])
        arguments = one["input_ids"], None, None, one["visual"]
        batch = model.prepare(*arguments, pruning=pruning, side="left").batch
        want = recompute(model, pruning, ids, one["visual"], batch)
        for layer, kept in want.kept.items():
            assert [k.tolist() for k in trace.kept[layer][image : image + count]] == kept
        lengths = [len(hidden) for hidden, _ in want.inputs.values()]
        assert [n[row] for n in trace.lengths] == lengths
        assert largest(logits[row, lengths[-1] - 1] - want.logits[-1]) <= 1e-5
        assert together[row].tolist() == want.greedy(3)
        image += count


def test_tokens_that_share_a_place_are_told_apart_inside():
    model = model_of()
    pruning = Pruning((Stage(Fixed(), k=12),), pruner=make_pruner("fastv", schedule="2:3"))
    trace = Trace()
    with torch.no_grad():
        model(**small_request(PICTURES), pruning=pruning, trace=trace)
    assert [len(kept) for kept in trace.kept[2]] == [3] * 4
    text = [len(row) - row.count(IMAGE) + 3 * row.count(IMAGE) for row in PICTURES]
    assert trace.lengths[-1] == text


@pytest.mark.parametrize("newlines", [False, True])
def test_a_selector_inside_chooses_among_merged_tokens(newlines):
    model = model_of()
    pruning = Pruning(
        (Stage(make_pruner("visionzip"), k=16), Stage(make_pruner("otprune"), k=6, layer=2)),
        keep_newlines=newlines,
    )
    trace = Trace()
    make = with_newlines if newlines else small_image
    request = small_request(ROWS, make=make)
    with torch.no_grad():
        logits = model(**request, pruning=pruning, trace=trace).logits
        first = make_pruning("visionzip", k=16, keep_newlines=newlines)
        states = model(**request, pruning=first, output_hidden_states=True).hidden_states[2]
    for image, kept in enumerate(trace.kept[2]):
        ends = int(request["visual"][image].newline.sum()) if newlines else 0
        assert len(kept) == 6 + ends
    assert logits.shape[1] == max(trace.lengths[-1])
    ends = int(request["visual"][0].newline.sum()) if newlines else 0
    want = make_pruner("otprune").select(states[0, 4 : 4 + 16], 6)
    entered = prepared(first, PICTURES[:1], make)[2]
    assert trace.kept[2][0].tolist()[:6] == entered.token_of[0, 4 + want].tolist()
    assert len(trace.kept[2][0]) == 6 + ends


def test_shares_inside_are_of_a_merger_s_budget_also_if_it_makes_fewer():
    model = model_of()
    trace = Trace()
    pruning = Pruning(
        (Stage(make_pruner("pooling"), k=11),), pruner=make_pruner("fastv", schedule="2:0.5")
    )
    with torch.no_grad():
        model(**small_request(PICTURES), pruning=pruning, trace=trace)
    assert min(map(len, trace.kept[0])) < 11
    assert [len(kept) for kept in trace.kept[2]] == [5] * 4


def test_a_merger_s_signals_must_be_there():
    image = small_image(0)
    bare = replace(image, signals=replace(image.signals, cls_features=None))
    request = small_request(PICTURES[:1]) | {"visual": [bare]}
    with pytest.raises(ValueError, match=r"VisionZip needs signals\.cls_features"):
        model_of()(**request, pruning=make_pruning("visionzip", k=9))
