"""The functions that LLaVA's users call by name, and what they refuse."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import PARITY, largest, loaded, padded, visual_of
from llava.mm_utils import process_images
from llava.model.llava_arch import OTPrune, greedy_select
from otprune.pruning import Trace, make_pruning
from otprune.selectors.otprune import OTPrune as Method

CKPT = "checkpoints/tiny-llava-v1.5"
IDS = torch.tensor([[1, 20, -200, 30, 31]])


def visual(count=1):
    return [visual_of(CKPT, "images/land.png")] * count


def test_the_method_and_its_greedy_rule_are_importable_from_llava_arch():
    assert OTPrune is Method
    tokens = torch.randn(40, 8)
    kernel = OTPrune(arithmetic="reference")._released_kernel(tokens, 9)
    picks = greedy_select(kernel, 9, 40, kernel.device, torch.float32, epsilon=1e-100)
    assert picks == OTPrune(arithmetic="reference").rank(tokens, 9).tolist()
    assert greedy_select(kernel, 9) == picks


def test_encode_images_is_tower_and_projector():
    _, model, processor, _ = loaded(CKPT)
    pixels = process_images([Image.open(PARITY / "images/land.png")], processor, model.config)
    with torch.no_grad():
        features = model.encode_images(pixels)
    assert features.shape == (1, 576, 64)
    assert torch.equal(features[0], visual()[0].tokens)


@pytest.mark.parametrize("form", ["4-D", "5-D", "list", "list of tiles"])
def test_pixels_may_come_in_every_form_that_the_original_takes(form):
    _, model, processor, _ = loaded("checkpoints/tiny-llava-v1.6")
    picture = Image.open(PARITY / "images/square.png")
    tiles = process_images([picture], processor, model.config)[0]
    images = {
        "4-D": tiles[:1],  # one tile an image: no merge
        "5-D": tiles[None],
        "list": [tiles],
        "list of tiles": [tiles[0]],  # one tile, with a newline behind
    }[form]
    with torch.no_grad():
        tokens = model.encode_visual(images, [picture.size])[0]
    assert len(tokens) == {"4-D": 576, "list of tiles": 577}.get(form, 2928)
    assert tokens.grid == ((24, 24) if form == "4-D" else None)


def test_signals_are_encoded_only_when_asked_for():
    _, model, processor, _ = loaded(CKPT)
    pixels = process_images([Image.open(PARITY / "images/land.png")], processor, model.config)
    with torch.no_grad():
        plain = model.encode_visual(pixels)[0]
        with_signals = model.encode_visual(
            pixels, signals=frozenset({"cls_attention", "encoder_keys"})
        )[0]
    assert plain.signals.cls_attention is None
    assert plain.signals.encoder_keys is None
    assert with_signals.signals.cls_attention.shape == (4, 576)
    assert with_signals.signals.encoder_keys.shape == (576, 32)
    assert torch.equal(plain.tokens, with_signals.tokens)


def prepared(model, ids, mask=None, labels=None, places=None, **more):
    return model.prepare_inputs_labels_for_multimodal(
        ids, places, mask, None, labels, torch.zeros(1, 3, 336, 336), **more
    )


def test_the_original_s_function_returns_what_the_original_returns():
    model = loaded(CKPT)[1]
    ids, places, mask, cache, embeds, labels = prepared(model, IDS)
    assert (ids, places, mask, cache, labels) == (None,) * 5
    assert embeds.shape == (1, 580, 64)
    mask = torch.ones_like(IDS)
    _, places, mask, _, embeds, labels = prepared(model, IDS, mask, IDS, torch.arange(5)[None])
    assert mask.dtype == torch.int64
    assert mask.shape == labels.shape == places.shape == (1, 580)
    text = torch.tensor([[7]])
    assert prepared(model, text)[0] is text  # a decoding step
    none = model.prepare_inputs_labels_for_multimodal(IDS, None, None, None, None, None)
    assert none[0] is IDS


def test_the_original_s_function_prunes_as_the_model_is_set_to():
    model = loaded(CKPT)[1]
    try:
        model.pruning = make_pruning("uniform", k=10)
        assert prepared(model, IDS)[4].shape == (1, 14, 64)
        assert prepared(model, IDS)[1] is None
        model.pruning = make_pruning("uniform", k=10, positions="original")
        assert prepared(model, IDS)[1].amax() == 579
        model.pruning = make_pruning("uniform", k=10, layer=2)
        with pytest.raises(ValueError, match="embeddings alone cannot be pruned inside"):
            prepared(model, IDS)
    finally:
        model.pruning = None


@pytest.mark.parametrize("use_cache", [True, False])
def test_what_the_original_s_function_returns_can_be_run_as_it_is(use_cache):
    model = loaded(CKPT)[1]
    _, processor = loaded(CKPT)[1:3]
    pixels = process_images([Image.open(PARITY / "images/land.png")], processor, model.config)
    for positions in ("compact", "original"):
        model.pruning = make_pruning("uniform", k=9, positions=positions)
        try:
            with torch.no_grad():
                _, places, mask, _, embeds, _ = model.prepare_inputs_labels_for_multimodal(
                    IDS, None, None, None, None, pixels
                )
                got = model(
                    inputs_embeds=embeds, attention_mask=mask, position_ids=places,
                    use_cache=use_cache,
                ).logits  # fmt: skip
                want = model(IDS, images=pixels).logits
        finally:
            model.pruning = None
        assert largest(got - want) <= 1e-5


def test_no_images_are_no_visual_tokens():
    model = loaded(CKPT)[1]
    assert model.encode_visual([]) == []
    with torch.no_grad():
        out = model.prepare_inputs_labels_for_multimodal(IDS[:, :2], None, None, None, None, [])
    assert out[4].shape == (1, 2, 64)


def test_a_mask_comes_back_where_images_make_rows_unequal():
    _, model, _, _ = loaded(CKPT)
    ids = torch.tensor([[1, -200, 3], [1, 2, 3]])
    mask = prepared(model, ids)[2]
    assert mask.sum(1).tolist() == [578, 3]


def test_the_model_s_own_pruning_holds_until_a_call_says_otherwise():
    model = loaded(CKPT)[1]
    try:
        model.pruning = make_pruning("uniform", k=10)
        with torch.no_grad():
            assert model(IDS, visual=visual()).logits.shape[1] == 14
            assert model(IDS, visual=visual(), pruning=None).logits.shape[1] == 580
            other = make_pruning("uniform", k=3)
            assert model(IDS, visual=visual(), pruning=other).logits.shape[1] == 7
            traces = [Trace(), Trace()]
            model.generate(IDS, visual=visual(), trace=traces[0], max_new_tokens=1)
            model.generate(IDS, visual=visual(), pruning=None, trace=traces[1], max_new_tokens=1)
        assert len(traces[0].kept[0][0]) == 10
        assert traces[1].kept == {}
        assert traces[1].lengths == [[580]] * 4
    finally:
        model.pruning = None


def test_seeded_methods_tell_images_apart_by_their_names():
    model = loaded(CKPT)[1]
    ids = torch.tensor([[1, -200, -200, 3]])
    pruning = make_pruning("random", k=20)

    def kept(names):
        trace = Trace()
        with torch.no_grad():
            model(ids, visual=visual(2), image_ids=names, pruning=pruning, trace=trace)
        return [one.tolist() for one in trace.kept[0]]

    assert kept(None)[0] == kept(None)[1]
    first, second = kept([3, 8])
    assert first != second
    assert kept([8, 3]) == [second, first]
    assert kept(np.array([3, 8])) == [first, second]
    with pytest.raises(ValueError, match="image_ids must have one entry for each of 2 images"):
        kept([1])


def test_prompts_longer_than_the_model_takes_are_cut_and_said(caplog):
    model = loaded("checkpoints/tiny-llava-v1.6")[1]
    image = visual_of("checkpoints/tiny-llava-v1.6", "images/square.png")
    ids, trace = torch.tensor([[1, -200, 5, -200, 6]]), Trace()
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        logits = model(ids, visual=[image, image], trace=trace).logits
    assert logits.shape[1] == 4096
    assert trace.truncated == [2 * 2928 + 3 - 4096]
    assert "tokenizer_model_max_length: [1763] positions lost" in caplog.text
    pruning = make_pruning("uniform", keep_ratio=0.1)
    with torch.no_grad():
        model(ids, visual=[image, image], pruning=pruning, trace=trace)
    assert trace.truncated == [0]


def test_a_cut_image_is_pruned_inside_as_far_as_it_is_there():
    model = loaded("checkpoints/tiny-llava-v1.6")[1]
    image = visual_of("checkpoints/tiny-llava-v1.6", "images/square.png")
    ids, trace = torch.tensor([[1, -200, 5, -200, 6]]), Trace()
    with torch.no_grad():
        model(
            ids, visual=[image] * 2, pruning=make_pruning("uniform", k=2000, layer=2), trace=trace
        )
    there = 4096 - 2 - 2928
    assert [len(kept) for kept in trace.kept[2]] == [2000, there]


@pytest.mark.long
def test_answers_end_after_1024_tokens_by_default():
    model = loaded(CKPT)[1]
    arguments = {
        "visual": visual(),
        "pruning": make_pruning("uniform", k=2),
        "eos_token_id": [9999],
    }
    assert model.generate(IDS, **arguments).shape == (1, 1024)
    assert model.generate(IDS, **arguments, max_new_tokens=2).shape == (1, 2)
    # The checkpoint's own limit of 4096 would count against new tokens alone.
    assert model.generation_config.max_length is None


def test_text_alone_returns_new_tokens_only():
    model = loaded(CKPT)[1]
    batch = padded([torch.tensor([1, 20, 21, 22]), torch.tensor([1, 20])])
    together = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"],
                              max_new_tokens=3, eos_token_id=[9999])  # fmt: skip
    alone = [model.generate(ids, max_new_tokens=3, eos_token_id=[9999])[0] for ids in
             (torch.tensor([[1, 20, 21, 22]]), torch.tensor([[1, 20]]))]  # fmt: skip
    assert together.tolist() == [answer.tolist() for answer in alone]
    assert torch.equal(model.generate(IDS[:, :2], images=[], max_new_tokens=2),
                       model.generate(IDS[:, :2], max_new_tokens=2))  # fmt: skip


def test_gradients_reach_the_kept_tokens_only():
    model = loaded(CKPT)[1]
    tokens = visual()[0].tokens.clone().requires_grad_()
    image = type(visual()[0])(tokens)
    for layer in (0, 2):
        trace = Trace()
        pruning = make_pruning("otprune", k=11, layer=layer)
        tokens.grad = None
        model(
            IDS, labels=IDS.clamp(min=-100), visual=[image], pruning=pruning, trace=trace
        ).loss.backward()
        touched = tokens.grad.abs().sum(1) > 0
        assert int(touched.sum()) == (11 if layer == 0 else 576)
        if layer == 0:
            assert touched.nonzero()[:, 0].tolist() == trace.kept[0][0].tolist()
    model.zero_grad()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(IDS), "one entry for each <image> of the prompts: 1 in 1 prompts, got 0"),
        (lambda m: m.generate(IDS), "1 in 1 prompts, got 0 images"),
        (lambda m: m(IDS[:, :2], visual=visual()), "0 in 1 prompts, got 1 images"),
        (lambda m: m(IDS, visual=visual(2)), "1 in 1 prompts, got 2 images"),
        (
            lambda m: m(IDS, visual=visual(), images=torch.zeros(1, 3, 336, 336)),
            "images and visual must not both be given",
        ),
        (lambda m: m.generate(), "generate needs token ids"),
        (lambda m: m.generate(inputs_embeds=torch.zeros(1, 2, 64)), "generate needs token ids"),
        (
            lambda m: m.generate(IDS, visual=visual(), position_ids=torch.zeros(1, 5)),
            "position_ids follow from attention_mask",
        ),
        (
            lambda m: m(IDS, images=torch.zeros(1, 3, 336, 336), image_sizes=[(1, 1), (2, 2)]),
            "image_sizes must have one entry for each of 1 images, got 2",
        ),
        (
            lambda m: m(IDS, images=torch.zeros(1, 3, 224, 224)),
            r"tiles must be \[b 3 336 336\], got \(1, 3, 224, 224\)",
        ),
        (
            lambda m: m(IDS, visual=visual(), pruning=make_pruning("otprune", k=3, layer=7)),
            r"layer must be in 0\.\.3 for a model of 4 layers, got 7",
        ),
        (
            lambda m: m(
                IDS, visual=visual(), pruning=make_pruning("otprune", k=5, compat="reference")
            ),
            "prunes positions 35 to 611, the batch has 580",
        ),
    ],
)
def test_mistakes_are_reported_before_anything_is_computed(call, message):
    with pytest.raises(ValueError, match=message):
        call(loaded(CKPT)[1])


def test_nan_features_are_refused_by_the_method_and_named():
    model = loaded(CKPT)[1]
    broken = type(visual()[0])(
        visual()[0].tokens.clone().index_fill(0, torch.tensor([5]), float("nan"))
    )
    with pytest.raises(ValueError, match="tokens must be finite, got nan at token 5"):
        model(IDS, visual=[broken], pruning=make_pruning("otprune", k=5))


def test_an_unpruned_call_equals_transformers_llama_on_the_same_embeddings():
    from transformers import LlamaForCausalLM

    model = loaded(CKPT)[1]
    llama = LlamaForCausalLM(model.config).eval()
    state = {n: t for n, t in model.state_dict().items() if "vision" not in n and "mm_" not in n}
    llama.load_state_dict(state)
    with torch.no_grad():
        batch = model.prepare(IDS, None, None, visual(), pruning=None, side="left").batch
        want = llama(inputs_embeds=batch.embeds).logits
        assert largest(model(IDS, visual=visual()).logits - want) == 0
