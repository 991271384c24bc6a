"""What every layer pruner of the registry owes the model, whatever the method."""

import dataclasses

import pytest
import torch

from helpers import drawn, signals_for
from layer_pruners.views import make_modules, make_view
from otprune import LayerPruner, LayerView, Modules, make_pruner
from otprune.registry import LAYER_PRUNERS
from otprune.schedule import tokens_by_layer

NAMES = sorted(LAYER_PRUNERS)
VARIANTS = [
    pytest.param(name, preset, id=name if preset is None else f"{name}-{preset}")
    for name in NAMES
    for preset in (None, *LAYER_PRUNERS[name].presets)
]


def view_of(pruner: LayerPruner, layer: int, **given) -> LayerView:
    """A made-up view with everything that the method asks the model for."""
    view = make_view(layer=layer, n=given.get("visual", 20) + 4, **given)
    if pruner.observes:
        view = dataclasses.replace(view, accumulated=drawn("seen", len(view.hidden)).abs())
    if pruner.starts:
        # What stands before layer 0: all n tokens of the image.
        text = {part: given[part] for part in ("before", "after", "answer") if part in given}
        first = make_view(layer=0, visual=view.n, seed=1, **text)
        view = dataclasses.replace(view, started=pruner.start(first))
    if pruner.needs:
        known = signals_for(pruner, view.hidden[view.visual], grid=None)
        view = dataclasses.replace(view, signals=known)
    return view


def inner_layers(pruner: LayerPruner) -> list[int]:
    return [point.layer for point in pruner.points if point.layer]


def counts_of(pruner: LayerPruner, v: int) -> set[int]:
    """Counts that the method may be asked for: none but 0 if that is all that its schedule says."""
    return {0} if not any(point.amount for point in pruner.points) else {0, 1, 7, v // 2, v - 1}


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_k_distinct_tokens_stay_at_every_point_and_the_same_again(name, preset):
    for layer in inner_layers(make_pruner(name, preset=preset)):
        for k in counts_of(make_pruner(name, preset=preset), 20):
            pruner = make_pruner(name, preset=preset)
            view = view_of(pruner, layer)
            before = view.hidden.clone()
            kept = pruner.prune(view, k)
            assert kept.index.dtype == torch.int64
            assert len(set(kept.index.tolist())) == k
            assert set(kept.index.tolist()) <= set(range(20))
            assert torch.equal(view.hidden, before)
            again = make_pruner(name, preset=preset).prune(view_of(pruner, layer), k)
            assert torch.equal(kept.index, again.index)
            check_merged(pruner, view, kept.merged, k)
            if kept.scores is not None:
                assert kept.scores.shape == (20,)


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_autocast_changes_no_choice(name, preset):
    pruner = make_pruner(name, preset=preset)
    for layer in inner_layers(pruner):
        view, k = view_of(pruner, layer), max(counts_of(pruner, 20))
        want = pruner.prune(view, k)
        with torch.autocast("cpu", torch.bfloat16):
            found = pruner.prune(view, k)
        assert torch.equal(want.index, found.index)
        for a, b in ((want.merged, found.merged), (want.scores, found.scores)):
            assert a is b is None or torch.equal(a, b)


def check_merged(pruner: LayerPruner, view: LayerView, merged, k: int) -> None:
    appended = pruner.appended(len(view.visual) - k)
    assert (0 if merged is None else len(merged)) == appended
    if appended:
        assert merged.shape[1] == view.hidden.shape[1]
        assert merged.dtype == view.hidden.dtype
        assert merged.isfinite().all()


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_only_layers_are_asked_that_the_model_will_answer_for(name, preset):
    pruner = make_pruner(name, preset=preset)
    for layer in inner_layers(pruner):
        view = view_of(pruner, layer)
        pruner.prune(view, max(counts_of(pruner, 20)))
        allowed = {layer, layer - 1} if pruner.looks_back else {layer}
        for what, *arguments in view.probe.calls:
            assert what == "final_norm" or arguments[0] in allowed


def awkward_views(pruner: LayerPruner, layer: int) -> dict[str, LayerView]:
    view = view_of(pruner, layer)
    merged = torch.tensor([*range(17), view.n, view.n + 1, view.n + 2])
    first = view.hidden[:1]
    return {
        "no question": view_of(pruner, layer, after=0),
        "a given answer": view_of(pruner, layer, answer=5),
        "one word": view_of(pruner, layer, after=1),
        "two tokens": view_of(pruner, layer, visual=2),
        "nothing before": view_of(pruner, layer, before=0),
        "all alike": dataclasses.replace(view, hidden=first.expand_as(view.hidden).clone()),
        "zeros": dataclasses.replace(view, hidden=torch.zeros_like(view.hidden)),
        "half": dataclasses.replace(view, hidden=view.hidden.half()),
        "bfloat16": dataclasses.replace(view, hidden=view.hidden.bfloat16()),
        "merged tokens": dataclasses.replace(view, numbers=merged),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", awkward_views(make_pruner("fastv"), 2))
def test_awkward_prompts_are_pruned_as_well(name, case):
    pruner = make_pruner(name)
    for layer in inner_layers(pruner):
        view = awkward_views(pruner, layer)[case]
        v = len(view.visual)
        for k in {k for k in counts_of(pruner, v) if k < v}:
            kept = pruner.prune(view, k)
            assert len(kept.index.unique()) == k
            check_merged(pruner, view, kept.merged, k)


@pytest.mark.parametrize("name", NAMES)
def test_pruning_needs_no_gradient_and_what_comes_out_may_take_part_in_one(name):
    pruner = make_pruner(name)
    for layer in inner_layers(pruner):
        view = view_of(pruner, layer)
        view = dataclasses.replace(view, hidden=view.hidden.requires_grad_())
        kept = pruner.prune(view, min(counts_of(pruner, 20) - {0}, default=0))
        for part in (kept.index, kept.merged, kept.scores):
            assert part is None or not (part.requires_grad or part.is_inference())


@pytest.mark.parametrize("name", [n for n in NAMES if make_pruner(n).observes])
def test_a_padded_prompt_is_observed_as_it_is_alone(name):
    pruner = make_pruner(name)
    for layer in pruner.observes:
        together = make_modules(rows=2, t=12, layer=layer)
        together.valid[1, :5] = False
        alone = Modules(
            layer,
            *(
                getattr(together, part)[1:, 5:]
                for part in (
                    "attention_in", "attention_out", "feed_forward_in", "feed_forward_out",
                )
            ),
            valid=together.valid[1:, 5:],
        )  # fmt: skip
        seen = pruner.observe(together)
        assert seen.shape == (2, 12)
        assert seen[0].isfinite().all()
        torch.testing.assert_close(seen[1, 5:], pruner.observe(alone)[0])


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
@pytest.mark.parametrize("n", [576, 2880])
def test_a_plan_leaves_fewer_tokens_from_layer_to_layer(name, preset, n):
    pruner = make_pruner(name, preset=preset)
    counts = pruner.plan(n, 40, None, float)
    assert set(counts) == {point.layer for point in pruner.points}
    assert list(counts) == sorted(counts)
    # A count may exceed what there is; then nothing is dropped.
    assert all(count >= 0 for count in counts.values())
    entered = tokens_by_layer(counts, n, 40, pruner.appended)
    assert entered == sorted(entered, reverse=True)
    assert entered[0] <= n


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_for_a_target_comes_near_it_or_says_that_it_is_out_of_reach(name):
    pruner, n, layers = make_pruner(name), 576, 32
    for average in (350, 200, 100, 20):
        counts, message = {}, ""
        try:
            counts = pruner.plan(n, layers, float(average * layers), float)
        except ValueError as error:
            message = str(error)
        if message:
            assert "budget is out of reach" in message
            continue
        found = sum(tokens_by_layer(counts, n, layers, pruner.appended)) / layers
        assert found == pytest.approx(average, abs=n / layers)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schedule", ["3", "2:1.5", "4:0.5/3:0.25", "2:-4", "-1:0.5", "two:3", ""])
def test_a_schedule_that_is_none_is_refused(name, schedule):
    with pytest.raises(ValueError, match="schedule must"):
        make_pruner(name, schedule=schedule)
