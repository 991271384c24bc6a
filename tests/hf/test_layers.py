"""Pruning inside decoders of several families, against masking and against eager attention."""

import subprocess
import sys
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from transformers import DynamicCache
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5TextModel

from hf.decoders import (
    FAMILIES,
    LAYERS,
    ROWS,
    SIZES,
    Masked,
    answer,
    batch_of,
    plan_of,
    tiny,
)
from otprune import Kept, LayerPruner, Signals
from otprune.hf.layers import DecoderAdapter, decoder_shape, install_hooks, layer_run
from otprune.hf.versions import CACHE
from otprune.pruning import Pruning, Trace, make_pruning

PRUNINGS = {
    "fastv": {"method": "fastv", "schedule": "2:0.4"},
    "pyramiddrop": {"method": "pyramiddrop", "schedule": "1:0.7/2:0.5/4:0.2"},
    "otprune at layer 2": {"method": "otprune", "k": 5, "layer": 2},
}
ALL = tuple(FAMILIES)[:4]
"""Decoders with which every pruning is tried."""
GRIDS = [name for name, family in FAMILIES.items() if family.axes > 1]
PLACED = [
    *((family, "original") for family in FAMILIES),
    *((family, "compact") for family in FAMILIES if family not in GRIDS),
]
STEPS = 6


def near(found, wanted, share=1e-5):
    """Whether numbers differ by rounding only."""
    return float((found - wanted).abs().max()) <= share * max(1, float(wanted.abs().max()))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("family", "positions", "setting"),
    # Three stages show that a further decoder is pruned rightly.
    [(*one, way) for one in PLACED for way in PRUNINGS if one[0] in ALL or way == "pyramiddrop"],
)
def test_dropping_is_masking_at_every_decoding_step(family, positions, setting, attention):
    pruning = make_pruning(**PRUNINGS[setting], positions=positions)
    model, trace = tiny(family).attend(attention), Trace()
    batch = batch_of(ROWS, FAMILIES[family].axes)
    try:
        answers = answer(model, batch, pruning, trace, STEPS)
        first = 0
        for row, parts in enumerate(ROWS):
            images = sum(isinstance(part, tuple) for part in parts)
            kept = {at: numbers[first : first + images] for at, numbers in trace.kept.items()}
            assert all(len(numbers) > 0 for at in kept for numbers in kept[at])
            masked = Masked(model, batch.alone(row), kept, positions == "compact")
            new = answers.tokens[row].tolist()
            for step, logits in enumerate(answers.logits):
                wanted = masked.logits(new[:step])
                assert near(logits[row], wanted)
            first += images
    finally:
        model.attend("sdpa")


@pytest.mark.parametrize("family", FAMILIES)
def test_dropping_is_masking_in_a_batch_padded_on_the_right(family):
    pruning = make_pruning(**PRUNINGS["pyramiddrop"], positions="original")
    model, trace = tiny(family), Trace()
    batch = batch_of(ROWS, FAMILIES[family].axes, "right")
    plan = plan_of(model, batch, pruning, trace)
    with torch.no_grad(), layer_run(model.adapter, plan, None, batch.embeds.shape[1]):
        states = model.decoder(**batch.arguments, use_cache=False).last_hidden_state
    first = 0
    for row, parts in enumerate(ROWS):
        images = sum(isinstance(part, tuple) for part in parts)
        kept = {at: numbers[first : first + images] for at, numbers in trace.kept.items()}
        wanted = Masked(model, batch.alone(row), kept, False).logits([])
        logits = model.head(states[row, trace.lengths[-1][row] - 1])
        assert near(logits, wanted)
        first += images


def test_the_pruned_model_is_told_apart_from_the_unpruned():
    batch = batch_of(ROWS, 1)
    whole = answer(tiny("qwen3"), batch, None, Trace(), 1).logits[0]
    pruned = answer(tiny("qwen3"), batch, make_pruning(**PRUNINGS["fastv"]), Trace(), 1).logits[0]
    assert (whole - pruned).abs().max() > 0.1


@dataclass(frozen=True, slots=True)
class Notes(LayerPruner):
    """Keeps the last tokens of each image and notes what the probe says."""

    looks_back: ClassVar[bool] = True
    schedule: str = "2:0.5"
    notes: list = field(default_factory=list)
    seen: list = field(default_factory=list)

    @property
    def observes(self):
        return frozenset({0, 1})

    def observe(self, modules):
        self.seen.append(modules)
        return modules.attention_out.norm(dim=-1)

    def _prune(self, view, k):
        everything = torch.arange(len(view.hidden))
        known = {
            layer: (view.probe.attention(layer, everything), view.probe.keys(layer))
            for layer in (view.layer - 1, view.layer)
        }
        self.notes.append((view, known))
        return Kept(torch.arange(len(view.visual) - k, len(view.visual)))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_and_keys_of_the_probe_are_those_of_eager_attention(family, side):
    model, pruner = tiny(family), Notes()
    if family == "gemma2" and model.decoder._supports_sdpa:
        pytest.skip("sdpa leaves out Gemma 2's soft cap before transformers 5.22")
    batch = batch_of(ROWS, FAMILIES[family].axes, side)
    plan = plan_of(model, batch, Pruning((), pruner=pruner))
    with torch.no_grad(), layer_run(model.adapter, plan, None, batch.embeds.shape[1]):
        model.decoder(**batch.arguments, use_cache=False)
    cache = DynamicCache(config=model.decoder.config)
    try:
        with torch.no_grad():
            plain = model.attend("eager").decoder(
                **batch.arguments, **{CACHE: cache}, output_attentions=True
            )
    finally:
        model.attend("sdpa")
    rows_of = [row for row, parts in enumerate(ROWS) for part in parts if isinstance(part, tuple)]
    assert len(pruner.notes) == len(rows_of)
    for row, (view, known) in zip(rows_of, pruner.notes, strict=True):
        valid = batch.layout.attention_mask[row]
        assert torch.equal(view.positions, batch.layout.position_ids[..., row, valid])
        for layer, (attention, keys) in known.items():
            want = plain.attentions[layer][row][:, valid][:, :, valid]
            assert near(attention, want, 3e-5)
            # Layers with a window have the last positions only.
            want = cache.layers[layer].keys[row]
            left = valid[-want.shape[1] :]
            count = int(left.sum())
            assert count == 0 or near(keys[:, -count:], want[:, left])
    assert [modules.layer for modules in pruner.seen] == [0, 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_calls_without_a_plan_are_left_to_the_last_bit(family):
    model, batch = tiny(family), batch_of(ROWS, FAMILIES[family].axes)
    plain = FAMILIES[family].make().eval()
    plain.load_state_dict(model.decoder.state_dict())
    with torch.no_grad(), layer_run(model.adapter, None, None, batch.embeds.shape[1]):
        ours = model.decoder(**batch.arguments).last_hidden_state
    with torch.no_grad():
        assert torch.equal(ours, plain(**batch.arguments).last_hidden_state)


def test_hooks_can_be_removed():
    decoder = FAMILIES["qwen3"].make()
    handles = install_hooks(DecoderAdapter(decoder))
    assert len(handles) == 3 * LAYERS
    for handle in handles:
        handle.remove()
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in decoder.modules()
    )


def test_hooks_installed_twice_are_noticed():
    model = tiny("qwen3")
    batch = batch_of(ROWS, 1)
    plan = plan_of(model, batch, make_pruning(**PRUNINGS["fastv"]))
    handles = install_hooks(model.adapter)
    try:
        with (
            pytest.raises(
                RuntimeError, match=r"got layer 0 after 1 layers \(hooks installed twice"
            ),
            layer_run(model.adapter, plan, None, batch.embeds.shape[1]),
        ):
            model.decoder(**batch.arguments, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", GRIDS)
def test_compact_positions_are_refused_under_multimodal_rotary_embedding(family):
    model, batch = tiny(family), batch_of(ROWS, FAMILIES[family].axes)
    plan = plan_of(model, batch, make_pruning("pyramiddrop", schedule="2:0.5"))
    with (
        pytest.raises(ValueError, match="positions must be 'original' under multimodal rotary"),
        layer_run(model.adapter, plan, None, batch.embeds.shape[1]),
    ):
        pass


def test_compact_positions_are_refused_where_layers_are_not_given_positions():
    model, batch = tiny("qwen2.5-vl"), batch_of(ROWS, 1)
    plan = plan_of(model, batch, make_pruning("pyramiddrop", schedule="2:0.5"))
    with (
        pytest.raises(ValueError, match="whose layers are not given rotary positions"),
        torch.no_grad(),
        layer_run(model.adapter, plan, None, batch.embeds.shape[1]),
    ):
        model.decoder(**batch.arguments, use_cache=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_adds_what_the_adapter_says(family):
    model, batch = tiny(family), batch_of(ROWS, FAMILIES[family].axes)
    adapter, noted = model.adapter, {}

    def note(name):
        def hook(module, args, kwargs, output):
            given = args[0] if args else kwargs["hidden_states"]
            noted[name] = given, output[0] if isinstance(output, tuple) else output

        return hook

    modules = {
        "layer": adapter.layers[1],
        "attention": adapter.attention(1),
        "feed_forward": adapter.feed_forward(1),
    }
    handles = [
        module.register_forward_hook(note(name), with_kwargs=True)
        for name, module in modules.items()
    ]
    with torch.no_grad():
        model.decoder(**batch.arguments, use_cache=False)
        made = noted["layer"][0] + sum(
            adapter.added(1, name, noted[name][1]) for name in ("attention", "feed_forward")
        )
    for handle in handles:
        handle.remove()
    assert near(made, noted["layer"][1])


def test_windows_are_refused_where_masks_do_not_say_who_sees_whom(monkeypatch):
    model, batch = tiny("qwen2, windows"), batch_of(ROWS, 1)
    monkeypatch.setattr(model.decoder.config, "_attn_implementation", "flash_attention_2")
    source = torch.arange(5).expand(2, -1)
    for given in (None, batch.layout.attention_mask):
        with pytest.raises(ValueError, match=r"sdpa or eager .* sliding_attention; got flash"):
            model.adapter.mask_of_kept(0, batch.embeds[:, :5], given, source, None, None)


def test_layers_without_attention_are_refused():
    config = Qwen3_5TextConfig(
        **SIZES, head_dim=16, layer_types=["linear_attention"] * 4 + ["full_attention"],
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16,
        linear_value_head_dim=16,
    )  # fmt: skip
    with pytest.raises(
        ValueError, match="full_attention or sliding_attention, got linear_attention at layers 0, 1"
    ):
        DecoderAdapter(Qwen3_5TextModel(config))


def test_the_shape_of_a_decoder_is_read_from_its_configuration():
    shape = decoder_shape(tiny("qwen3").decoder.config)
    assert (shape.hidden, shape.feed_forward, shape.layers) == (64, 96, LAYERS)
    assert (shape.heads, shape.kv_heads, shape.head_dim) == (4, 2, 24)
    assert tiny("qwen3").adapter.shape == shape


def test_signals_of_an_image_reach_a_selector_inside():
    seen = []

    class Asks(type(make_pruning("first_k", k=1).stages[0].method)):
        needs = frozenset({"text_embeddings"})

        def _rank_image(self, tokens, k, signals):
            seen.append(signals)
            return super()._rank_image(tokens, k, signals)

    batch = batch_of(ROWS, 1)
    answer(tiny("llama"), batch, make_pruning(Asks(), k=3, layer=2), Trace(), 1)
    assert [one.image_id for one in seen] == [0, 1, 2]
    assert [len(one.text_embeddings) for one in seen] == [5, 4, 4]
    assert isinstance(seen[0], Signals)


def test_importing_otprune_does_not_import_transformers():
    code = "import sys, otprune, otprune.pruning; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
