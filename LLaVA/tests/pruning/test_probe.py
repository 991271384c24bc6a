"""What layer pruners may ask of the layers, against eager attention, caches and hooks."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from transformers import DynamicCache

from helpers import largest, loaded
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from masked import CKPT, ROWS
from otprune import Kept, LayerPruner
from otprune.pruning import Pruning, Trace
from otprune.pruning.image_tokens import ImageTokens
from small_images import IMAGE, small_request

TOWER = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 28, "patch_size": 7,
}  # fmt: skip


def grouped() -> LlavaLlamaForCausalLM:
    """A random model with two key-value heads for eight query heads of an odd width."""
    torch.manual_seed(0)
    config = LlavaConfig(
        vocab_size=120, hidden_size=64, intermediate_size=96, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=2, head_dim=12, rope_theta=50.0,
        mm_vision_tower="tower", mm_vision_config=TOWER, mm_vision_select_layer=-2,
        mm_projector_type="linear", mm_hidden_size=32, initializer_range=0.2,
    )  # fmt: skip
    return LlavaLlamaForCausalLM(config).eval()


MODELS = {"one head each": lambda: loaded(CKPT)[1], "grouped heads": grouped}


@dataclass(frozen=True, slots=True)
class Asks(LayerPruner):
    """Notes all that it is shown and drops the first tokens of each image."""

    looks_back: ClassVar[bool] = True
    schedule: str = "1:0.7/3:0.3"
    last: int = 4
    notes: list = field(default_factory=list)
    seen: list = field(default_factory=list)

    @property
    def observes(self):
        return frozenset(range(self.last))

    def observe(self, modules):
        self.seen.append(modules)
        return modules.attention_in.abs().sum(-1) + modules.feed_forward_out.abs().sum(-1)

    def _prune(self, view, k):
        everything = torch.arange(len(view.hidden))
        known = {"view": view}
        for layer in (view.layer - 1, view.layer):
            known[layer] = {
                "attention": view.probe.attention(layer, everything),
                "keys": view.probe.keys(layer),
                "rotary": view.probe.rotary(layer),
            }
        known["norm"] = view.probe.final_norm(view.hidden)
        self.notes.append(known)
        return Kept(torch.arange(len(view.visual) - k, len(view.visual)))


def run_with(kind, pruning, rows=ROWS, side="right", attention="sdpa", **more):
    """The request with images as wide as the model, and what a forward call gives."""
    model = MODELS[kind]()
    request = small_request(rows, side)
    width = model.config.hidden_size
    request["visual"] = [ImageTokens(one.tokens[:, :width]) for one in request["visual"]]
    model.set_attn_implementation(attention)
    try:
        with torch.no_grad():
            return model, request, model(**request, pruning=pruning, **more)
    finally:
        model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", MODELS)
def test_attention_keys_and_angles_are_the_layers_own(kind, side):
    pruner = Asks("2:0.5")
    _, _, _ = run_with(kind, Pruning((), pruner=pruner), side=side)
    cache = DynamicCache()
    model, _, plain = run_with(
        kind, None, side=side, attention="eager", output_attentions=True,
        output_hidden_states=True, past_key_values=cache,
    )  # fmt: skip
    notes = iter(pruner.notes)
    for row, ids in enumerate(ROWS):
        for _ in range(ids.count(IMAGE)):
            known = next(notes)
            view = known["view"]
            t = len(view.hidden)
            assert largest(view.hidden - plain.hidden_states[2][row, :t]) <= 5e-5
            assert view.positions.tolist() == list(range(t))
            want = model.model.norm(view.hidden)
            assert largest(known["norm"] - want) == 0
            cos, sin = model.model.rotary_emb(view.hidden[None], view.positions[None])
            for layer in (1, 2):
                found = known[layer]["attention"]
                assert found.dtype == torch.float32
                assert largest(found - plain.attentions[layer][row, :, :t, :t]) <= 2e-5
                assert largest(known[layer]["keys"] - cache.layers[layer].keys[row, :, :t]) <= 5e-5
                assert largest(known[layer]["rotary"][0] - cos[0]) == 0
                assert largest(known[layer]["rotary"][1] - sin[0]) == 0
    assert next(notes, None) is None


@pytest.mark.parametrize("kind", MODELS)
def test_at_a_second_point_they_are_those_of_what_is_left(kind):
    pruner, cache = Asks("1:0.7/3:0.3"), DynamicCache()
    rows = [row for row in ROWS if IMAGE in row]
    run_with(kind, Pruning((), pruner=pruner), rows=rows, past_key_values=cache)
    second = [known for known in pruner.notes if known["view"].layer == 3]
    rows_of = [row for row, ids in enumerate(rows) for _ in range(ids.count(IMAGE))]
    for row, known in zip(rows_of, second, strict=True):
        t = len(known["view"].hidden)
        cached = cache.layers[2].keys[row]
        assert largest(known[2]["keys"] - cached[:, :t]) <= 1e-5
        sums = known[2]["attention"].sum(-1)
        assert largest(sums - 1) <= 1e-5
        # Original positions: what was dropped has left gaps.
        places = known["view"].positions
        assert (places.diff() >= 1).all()
        assert (places.diff() > 1).any()


def test_a_probe_refuses_other_layers():
    class Wrong(Asks):
        def _prune(self, view, k):
            view.probe.keys(0)

    with pytest.raises(ValueError, match="layer must be one of 1, 2 here, got 0"):
        run_with("one head each", Pruning((), pruner=Wrong("2:0.5")))


def test_modules_are_what_goes_into_the_halves_and_comes_out():
    model = loaded(CKPT)[1]
    seen: dict[tuple[int, str], tuple] = {}

    def note(key):
        def hook(module, args, kwargs, output):
            given = args[0] if args else kwargs["hidden_states"]
            seen[key] = (given, output[0] if isinstance(output, tuple) else output)

        return hook

    hooks = [
        getattr(layer, name).register_forward_hook(note((number, name)), with_kwargs=True)
        for number, layer in enumerate(model.model.layers)
        for name in ("self_attn", "mlp")
    ]
    pruner = Asks("1:0.7/3:0.3")
    try:
        run_with("one head each", Pruning((), pruner=pruner))
    finally:
        for hook in hooks:
            hook.remove()
    assert [one.layer for one in pruner.seen] == [0, 1, 2]
    for one in pruner.seen:
        for half, parts in (
            ("self_attn", (one.attention_in, one.attention_out)),
            ("mlp", (one.feed_forward_in, one.feed_forward_out)),
        ):
            for ours, theirs in zip(parts, seen[one.layer, half], strict=True):
                assert torch.equal(ours, theirs)


def test_layers_from_the_last_point_on_are_not_observed():
    pruner = Asks("1:0.7")
    run_with("one head each", Pruning((), pruner=pruner))
    assert [one.layer for one in pruner.seen] == [0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_observed_sums_follow_the_tokens(side):
    """Sums of two points against each other: the kept tokens' sum grows by what layer 1, 2 give."""
    pruner = Asks("1:0.7/3:0.3")
    trace = Trace()
    run_with("one head each", Pruning((), pruner=pruner), side=side, trace=trace)
    images = len(pruner.notes) // 2
    rows_of = [row for row, ids in enumerate(ROWS) for _ in range(ids.count(IMAGE))]
    for image in range(images):
        row = rows_of[image]
        before, after = pruner.notes[image]["view"], pruner.notes[images + image]["view"]
        sums = [Asks().observe(modules)[row] for modules in pruner.seen]
        valid = [modules.valid[row].nonzero()[:, 0] for modules in pruner.seen]
        assert largest(before.accumulated - sums[0][valid[0]]) <= 1e-5
        old = before.visual[torch.isin(before.numbers, after.numbers)]
        want = before.accumulated[old] + (sums[1] + sums[2])[valid[1]][after.visual]
        assert largest(after.accumulated[after.visual] - want) <= 1e-4


def test_batches_of_beams_are_observed_once_for_each_prompt():
    model = loaded(CKPT)[1]
    pruner = Asks("2:0.5")
    model.generate(
        **small_request(ROWS), pruning=Pruning((), pruner=pruner), num_beams=3, max_new_tokens=2
    )
    assert [one.attention_in.shape[0] for one in pruner.seen] == [len(ROWS)] * 2
    assert len(pruner.notes) == sum(row.count(IMAGE) for row in ROWS)
