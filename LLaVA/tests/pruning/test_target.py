"""Equal cost for all layers together: reached from below, and refused where it cannot be."""

import pytest
import torch

from helpers import loaded, visual_of
from masked import ROWS, model_of
from otprune import make_pruner
from otprune.cost import DecoderShape
from otprune.pruning import Pruning, Stage, Trace, make_pruning
from otprune.pruning.target import Target
from recomputed import shape_of
from small_images import IMAGE, small_request

SHAPES = {
    "7B": DecoderShape(4096, 11008, 32, 32, 32),
    "13B": DecoderShape(5120, 13824, 40, 40, 40),
    "grouped": DecoderShape(4096, 14336, 32, 32, 8),
}
METHODS = {
    "otprune at layer 1": ("otprune", {"layer": 1}),
    "otprune at layer 2": ("otprune", {"layer": 2}),
    "fastv": ("fastv", {}),
    "fastv, count": ("fastv", {"schedule": "3:13"}),
    "pyramiddrop": ("pyramiddrop", {}),
    "transprune": ("transprune", {}),
    "sparsevlm": ("sparsevlm", {}),
    "sparsevlm 2": ("sparsevlm", {"version": "2"}),
    "dart": ("dart", {}),
    "tops": ("tops", {}),
}
SMALL = {
    "otprune": ("otprune", {"layer": 1}),
    "before": ("otprune", {}),
    "visionzip": ("visionzip", {}),
    "fastv": ("fastv", {"schedule": "1:0.5"}),
    "pyramiddrop": ("pyramiddrop", {"schedule": "1:0.7/2:0.4/3:0.1"}),
    "transprune": (
        "transprune",
        {"schedule": "1:0.8/2:0.5/3:0.2", "observe_from": 0, "observe_to": 2},
    ),
    "sparsevlm": ("sparsevlm", {"schedule": "1:0.6/2:0.4/3:0.2"}),
    "dart": ("dart", {"schedule": "1:9"}),
    "tops": ("tops", {"schedule": "0:0.8/1:0.5/3:0.2"}),
    "vtw": ("vtw", {"schedule": "2:0"}),
}


def plain_cost(shape: DecoderShape, tokens: int) -> int:
    """Multiply-adds of a layer, written out: projections, attention, three matrices, 3ndm."""
    d, m = shape.hidden, shape.feed_forward
    return 4 * tokens * d * d + 2 * tokens * tokens * d + 3 * tokens * d * m


def totals(pruning: Pruning, n: int, shape: DecoderShape, match: str) -> tuple[float, float]:
    """What the settings cost, and what one token less at their finest point would save."""
    lengths = pruning.tokens_by_layer(n, shape)

    def cost(count):
        return count if match == "average" else plain_cost(shape, count)

    last = sum(cost(one) - cost(one - 1) for one in lengths if one == lengths[-1])
    return sum(map(cost, lengths)), last


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("match", ["average", "flops"])
@pytest.mark.parametrize("method", METHODS)
def test_the_target_is_met_within_a_token_and_never_exceeded(method, match, shape):
    name, settings = METHODS[method]
    shape = SHAPES[shape]
    for n in (576, 2340):
        for ratio in (0.4, 0.5, 0.75):
            pruning = make_pruning(name, keep_ratio=ratio, match=match, **settings)
            lengths = pruning.tokens_by_layer(n, shape)
            full = n if match == "average" else plain_cost(shape, n)
            total, token = totals(pruning, n, shape, match)
            target = ratio * shape.layers * full
            assert total <= target * (1 + 1e-12)
            # One more token from the last point on costs more than what is left; appended means
            # may come with it.
            assert target - total <= 3 * token
            if match == "average":
                assert target / shape.layers - sum(lengths) / shape.layers < 1
            assert lengths == sorted(lengths, reverse=True)


def test_a_count_is_the_cost_of_as_many_tokens_in_every_layer():
    shape = SHAPES["7B"]
    pruning = make_pruning("fastv", k=192, match="flops")
    total, token = totals(pruning, 576, shape, "flops")
    assert 0 <= 32 * plain_cost(shape, 192) - total <= token
    assert sum(make_pruning("fastv", k=192).tokens_by_layer(576, shape)) <= 192 * 32
    assert make_pruning("fastv", k=900).tokens_by_layer(576, shape) == [576] * 32


def test_selectors_before_the_model_meet_it_as_they_are():
    shape = SHAPES["7B"]
    for match in ("average", "flops"):
        pruning = make_pruning("otprune", k=64, match=match)
        assert pruning.tokens_by_layer(576, shape) == [64] * 32
    assert make_pruning("otprune", keep_ratio=0.5, match="average").plan(576, shape) == {0: 288}
    fewer = make_pruning("otprune", keep_ratio=0.5, match="flops").plan(576, shape)[0]
    assert 288 < fewer < 300


@pytest.mark.parametrize("setting", SMALL)
@pytest.mark.parametrize("match", ["average", "flops"])
def test_what_is_planned_is_what_happens_for_each_image(setting, match):
    name, settings = SMALL[setting]
    model = model_of()
    pruning = make_pruning(name, keep_ratio=0.5, match=match, **settings)
    model.check_pruning(pruning)
    trace = Trace()
    request = small_request(ROWS)
    with torch.no_grad():
        model(**request, pruning=pruning, trace=trace)
    each = [pruning.tokens_by_layer(len(one), shape_of(model)) for one in request["visual"]]
    image = 0
    for row, ids in enumerate(ROWS):
        count = ids.count(IMAGE)
        mine = each[image : image + count]
        want = [len(ids) - count + sum(one[layer] for one in mine) for layer in range(4)]
        assert [lengths[row] for lengths in trace.lengths] == want
        image += count


@pytest.mark.parametrize("setting", ["fastv", "sparsevlm", "tops", "otprune"])
def test_images_of_several_tiles_have_plans_of_their_own(setting):
    name, settings = SMALL[setting]
    model = loaded("checkpoints/tiny-llava-v1.6")[1]
    visual = [
        visual_of("checkpoints/tiny-llava-v1.6", f"images/{one}.png") for one in ("land", "wide")
    ]
    ids = torch.tensor([[1, IMAGE, 5, 6, 7], [1, 8, IMAGE, 9, 3]])
    pruning = make_pruning(name, keep_ratio=0.04 if name == "tops" else 0.3, **settings)
    trace = Trace()
    with torch.no_grad():
        model(ids, visual=visual, pruning=pruning, trace=trace)
    assert len(visual[0]) != len(visual[1])
    for row, image in enumerate(visual):
        want = pruning.tokens_by_layer(len(image), shape_of(model))
        assert [lengths[row] - 4 for lengths in trace.lengths] == want


@pytest.mark.parametrize(
    ("pruning", "least"),
    [
        (make_pruning("otprune", keep_ratio=0.2, layer=2, match="average"), "288.5 of 576 tokens"),
        (make_pruning("fastv", k=100, schedule="1:0.5"), "144.8 of 576 tokens"),
        (make_pruning("pyramiddrop", keep_ratio=0.2, schedule="2:0.5/3:0.2"), "288.5 of 576"),
        (
            make_pruning(
                "transprune", keep_ratio=0.1, schedule="1:0.5", observe_from=0, observe_to=0
            ),
            "14",
        ),
        (make_pruning("sparsevlm", k=150, schedule="1:0.6/3:0.2"), "154.0 of 576 tokens"),
        (make_pruning("vtw", keep_ratio=0.1, schedule="2:0"), "VTW runs at least one of 4 layers"),
        (
            make_pruning("dart", keep_ratio=0.3, schedule="3:9", match="flops"),
            "432.2 of 576 tokens",
        ),
    ],
)
def test_a_target_out_of_reach_is_refused_before_anything_runs(pruning, least):
    model = model_of()
    calls = []
    hook = model.model.layers[0].register_forward_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(ValueError, match=f"the budget is out of reach: .*{least}"):
            model.check_pruning(pruning)
        request = small_request(ROWS)
        with pytest.raises(ValueError, match="the budget is out of reach"):
            model(**request, pruning=pruning)
    finally:
        hook.remove()
    assert not calls
    # With one token kept before the language model nothing is out of reach.
    model.check_pruning(make_pruning("tops", k=1, schedule="0:0.8/1:0.5"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Target("kept", 0.5), "match must be kept, average or flops, got 'kept'"),
        (lambda: Target("average"), "exactly one of keep_ratio and k"),
        (lambda: Target("average", 0.5, 3), "exactly one of keep_ratio and k"),
        (lambda: Target("flops", 1.5), r"keep_ratio must be in \(0, 1\], got 1.5"),
        (lambda: Target("flops", k=0), "k must be an integer >= 1, got 0"),
        (lambda: make_pruning("fastv", match="average"), "match='average' needs keep_ratio or k"),
        (
            lambda: make_pruning("fastv", keep_ratio=0.5, match="kept"),
            "match must be average or flops",
        ),
        (lambda: make_pruning("fastv", keep_ratio=0.5, layer=2), "layer must be 0 for FastV"),
        (
            lambda: make_pruning("otprune", k=3, match="cost"),
            "match must be kept, average or flops",
        ),
        (lambda: make_pruning("visionzip", k=3, layer=2), "layer must be 0 for VisionZip"),
        (lambda: make_pruning("otprune", match="average"), "exactly one of keep_ratio and k"),
        (
            lambda: make_pruning("fastv", compat="reference"),
            "compat='reference' knows selectors only",
        ),
        (lambda: make_pruning("fastv", keep_newlines=True), "keep_newlines goes with selectors"),
        (lambda: make_pruning("visionzip", k=3, compat="reference"), "knows selectors only"),
        (
            lambda: Pruning(
                (Stage(make_pruner("otprune"), k=3, layer=1),), pruner=make_pruner("fastv")
            ),
            r"stages beside a pruner must be at layer 0, got \[1\]",
        ),
        (
            lambda: Pruning((Stage(make_pruner("otprune"), k=3),), pruner=make_pruner("tops")),
            "TOPS has a stage at layer 0 of its own",
        ),
        (
            lambda: Pruning(
                (Stage(make_pruner("otprune"), k=3),),
                pruner=make_pruner("fastv"),
                target=Target("average", 0.5),
            ),
            "a target needs one stage, or a layer pruner alone",
        ),
        (lambda: Pruning((), pruner=make_pruner("otprune")), "pruner must be an otprune Layer"),
        (
            lambda: Pruning(
                (
                    Stage(make_pruner("visionzip"), k=9),
                    Stage(make_pruner("fastervlm"), k=3, layer=2),
                )
            ),
            "FasterVLM needs cls_attention, which merged tokens do not have; VisionZip merges",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_largest_of_the_schedule_s_layers_must_exist():
    model = model_of()
    for pruning in (
        make_pruning("fastv", schedule="4:0.5"),
        make_pruning("transprune", keep_ratio=0.5),
    ):
        with pytest.raises(ValueError, match=r"layer must be in 0\.\.3 for a model of 4 layers"):
            model.check_pruning(pruning)
