"""`otprune.hf.pruned` in tiny models of many families, against models written out by hand."""

import threading

import pytest
import torch
from transformers import DynamicCache, GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.generation.streamers import BaseStreamer

import otprune.hf
from hf.by_hand import Unpruned
from hf.tiny_vlms import (
    FAMILIES,
    FULL,
    INSIDE,
    PLACEHOLDER,
    VIDEOS,
    clone,
    filmed,
    tiny,
)
from otprune import Signals, make_pruner
from otprune.hf import UnsupportedModelError, prune_inputs, pruned
from otprune.hf.families import family_of
from otprune.hf.layers.probe import LayerInput
from otprune.hf.versions import BEAMS_MIX_IMAGES, CACHE
from otprune.pruning import Pruning, Stage, Trace, make_pruning

STEPS = 5
RAGGED = ("random", {"keep_ratio": 0.4, "seed": 3})


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def answers(model, inputs, **settings):
    """Generated tokens without the prompt, and the logits that chose them."""
    done = model.generate(
        **clone(inputs), max_new_tokens=STEPS, do_sample=False, output_scores=True,
        return_dict_in_generate=True, **settings,
    )  # fmt: skip
    new = done.sequences[:, inputs["input_ids"].shape[1] :]
    return new, torch.stack(done.scores, 1)


def largest(difference):
    return float(difference.abs().max())


@pytest.mark.parametrize("name", FAMILIES)
def test_with_all_tokens_kept_not_a_bit_changes(name):
    model, inputs, images = tiny(name)
    valid = inputs["attention_mask"].bool()
    plain, told = model(**clone(inputs)).logits, answers(model, inputs)
    with pruned(model, "otprune", keep_ratio=1.0) as trace:
        full, again = model(**clone(inputs)).logits, answers(model, inputs)
    assert torch.equal(plain[valid], full[valid])
    assert torch.equal(told[0], again[0])
    assert torch.equal(told[1], again[1])
    assert trace.visual == images


def test_numbers_of_images_may_be_asked_for_at_each_call():
    model, inputs, images = tiny("llava")
    asked = []

    def numbers(count):
        asked.append(count)
        return range(7, 7 + count)

    with pruned(model, *RAGGED[:1], **RAGGED[1], image_ids=numbers) as trace:
        model(**clone(inputs))
        kept = trace.kept[0].copy()
        model(**clone(inputs))
    assert asked == [len(images)] * 2
    with pruned(model, *RAGGED[:1], **RAGGED[1], image_ids=[7, 8, 9]) as trace:
        model(**clone(inputs))
    assert all(map(torch.equal, kept, trace.kept[0]))
    assert not torch.equal(kept[0], kept[1])
    short = pruned(model, *RAGGED[:1], **RAGGED[1], image_ids=lambda _: [1])
    with pytest.raises(ValueError, match="one entry for each of 3 images, got 1"), short:
        model(**clone(inputs))


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_those_of_prompts_that_were_shortened_by_hand(name):
    model, inputs, images = tiny(name)
    by_hand = Unpruned(tiny(name))
    method, settings = RAGGED
    plain = answers(model, inputs)[1]
    with pruned(model, method, **settings) as trace:
        tokens, scores = answers(model, inputs)
    kept = trace.kept[0]
    assert [len(keep) for keep in kept] == [round(0.4 * count) for count in images]
    keeps = by_hand.keeps(images, kept)
    assert trace.lengths[0] == keeps.sum(1).tolist()
    assert largest(scores - by_hand.logits(keeps, tokens, "compact")) <= 1e-5
    assert largest(scores - plain) > 0.01, "the model must notice that tokens are gone"


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_methods_budgets_and_positions(name, attention):
    model, inputs, images = tiny(name)
    model.set_attn_implementation(attention)
    by_hand = Unpruned(tiny(name))
    for positions in ("original",) if by_hand.many_axes else ("compact", "original"):
        for method, budget in (("otprune", {"k": 3}), ("divprune", {"keep_ratio": 0.5})):
            with pruned(model, method, positions=positions, **budget) as trace:
                tokens, scores = answers(model, inputs)
                direct = model(**clone(inputs)).logits[:, -1]
            keeps = by_hand.keeps(images, trace.kept[0])
            wanted = by_hand.logits(keeps, tokens, positions)
            assert largest(scores - wanted) <= 1e-5
            assert largest(direct - wanted[:, 0]) <= 1e-5
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("name", FULL)
def test_one_row_answers_as_in_a_batch_and_on_either_side_of_the_padding(name):
    model, inputs, images = tiny(name)
    if name in ("llava_next", "llava_onevision"):
        last = {
            "pixel_values": inputs["pixel_values"][-1:],
            "image_sizes": inputs["image_sizes"][-1:],
        }
    elif "image_grid_thw" in inputs:
        count = int(inputs["image_grid_thw"][-1].prod())
        last = {
            "pixel_values": inputs["pixel_values"][-count:],
            "image_grid_thw": inputs["image_grid_thw"][-1:],
        }
    else:
        last = {"pixel_values": inputs["pixel_values"][-1:]}
    ids = inputs["input_ids"][1][inputs["attention_mask"][1].bool()][None]
    alone = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **last}
    for kind in ("mm_token_type_ids", "token_type_ids"):
        if kind in inputs:
            alone[kind] = (ids == PLACEHOLDER).to(inputs[kind])
    right = {
        key: torch.cat([value, value.new_zeros(1, 6)], 1) if value.shape == ids.shape else value
        for key, value in alone.items()
    }
    with pruned(model, "otprune", k=4):
        batch = model(**clone(inputs)).logits[1, -1]
        row = model(**clone(alone)).logits[0, -1]
        padded = model(**clone(right)).logits[0, int(ids.shape[1]) - images[-1] + 4 - 1]
    assert largest(batch - row) <= 1e-5
    assert largest(padded - row) <= 1e-5


SEVERAL_IMAGES = pytest.mark.skipif(BEAMS_MIX_IMAGES, reason="transformers mixes up images")


@pytest.mark.skipif(not BEAMS_MIX_IMAGES, reason="this version of transformers does not")
def test_beams_are_refused_where_transformers_mixes_up_the_images_of_a_prompt():
    model, inputs, _ = tiny("llava")
    with (
        pruned(model, "otprune", k=9),
        pytest.raises(UnsupportedModelError, match=r"llava mixes up .* got 3: .* one image"),
    ):
        model.generate(**clone(inputs), max_new_tokens=2, num_beams=3)


@SEVERAL_IMAGES
def test_beams_and_several_answers():
    model, inputs, images = tiny("llava")
    by_hand = Unpruned(tiny("llava"))
    with pruned(model, "otprune", k=9) as trace:
        out = model.generate(
            **clone(inputs), max_new_tokens=3, num_beams=3, num_return_sequences=2, do_sample=False,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
    prompt = inputs["input_ids"].shape[1]
    assert torch.equal(out.sequences[:, :prompt], inputs["input_ids"].repeat_interleave(2, 0))
    keeps = by_hand.keeps(images, trace.kept[0])
    for beam in range(2):
        tokens = out.sequences[beam::2, prompt:]
        chances = by_hand.logits(keeps, tokens, "compact").log_softmax(-1)
        total = chances.gather(2, tokens[..., None]).sum((1, 2))
        assert largest(total / 3 - out.sequences_scores[beam::2]) <= 1e-5


@pytest.mark.parametrize("method", ["otprune", "fastv"])
def test_beams_of_several_images_are_refused_in_glm(method):
    model, inputs, _ = tiny("glm4v")
    settings = {"k": 3} if method == "otprune" else {"schedule": "2:0.5"}
    with (
        pruned(model, method, **settings),
        pytest.raises(UnsupportedModelError, match=r"glm4v mixes up .* got 2: .* one image"),
    ):
        model.generate(**clone(inputs), max_new_tokens=2, num_beams=2)
    count = int(inputs["image_grid_thw"][-1].prod())
    ids = inputs["input_ids"][1][inputs["attention_mask"][1].bool()][None]
    one = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == PLACEHOLDER).int(),
        "pixel_values": inputs["pixel_values"][-count:],
        "image_grid_thw": inputs["image_grid_thw"][-1:],
    }
    with pruned(model, method, **settings):
        assert len(model.generate(**one, max_new_tokens=2, num_beams=2)) == 1


@SEVERAL_IMAGES
@pytest.mark.parametrize("name", ["gemma3", "aya_vision"])
def test_beams_share_what_is_dropped_inside_under_windows(name):
    model, inputs, images = tiny(name)
    by_hand = Unpruned(tiny(name))
    with pruned(model, "pyramiddrop", schedule="2:0.5/3:0.25", positions="original") as trace:
        out = model.generate(
            **clone(inputs), max_new_tokens=3, num_beams=2, do_sample=False, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
    first = by_hand.keeps(images, trace.kept[2])
    later = first & by_hand.keeps(images, trace.kept[3])
    for row, answer in enumerate(out.sequences[:, inputs["input_ids"].shape[1] :]):
        layers = [by_hand.valid[row]] * 2 + [first[row], later[row]]
        chances = by_hand.masked(row, layers, answer).log_softmax(-1)
        total = chances.gather(1, answer[:, None]).sum()
        assert largest(total / 3 - out.sequences_scores[row]) <= 1e-5


@SEVERAL_IMAGES
def test_beams_of_images_with_unequal_counts_are_refused_where_they_would_be_mixed_up():
    model, inputs, _ = tiny("internvl")
    with pruned(model, "otprune", keep_ratio=0.3):
        with pytest.raises(UnsupportedModelError, match=r"internvl mixes up images .* got 3"):
            model.generate(**clone(inputs), max_new_tokens=2, num_beams=3)
        assert len(model.generate(**clone(inputs), max_new_tokens=2)) == 2
    with pruned(model, "otprune", k=4):
        assert len(model.generate(**clone(inputs), max_new_tokens=2, num_beams=3)) == 2


@pytest.mark.parametrize(
    ("name", "unit", "sizes"),
    [
        ("internvl", None, [32, 16, 16]),
        ("internvl", "tile", [16, 16, 16, 16]),
        ("internvl", "sample", [48, 16]),
        ("smolvlm", None, [16, 16, 16]),
        ("smolvlm", "sample", [32, 16]),
        ("qwen3_vl", "sample", [33, 10]),
        ("llava", "image", [64, 64, 64]),
    ],
)
def test_a_budget_is_for_what_unit_says(name, unit, sizes):
    model, inputs, _ = tiny(name)
    by_hand = Unpruned(tiny(name))
    with pruned(model, "otprune", keep_ratio=0.25, unit=unit) as trace:
        tokens, scores = answers(model, inputs)
    assert trace.visual == sizes
    assert [len(keep) for keep in trace.kept[0]] == [size // 4 for size in sizes]
    keeps = by_hand.keeps(sizes, trace.kept[0])
    assert largest(scores - by_hand.logits(keeps, tokens, "compact")) <= 1e-5


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_are_pruned_like_images(name):
    model, inputs, sizes = filmed(name)
    by_hand = Unpruned(filmed(name))
    plain = answers(model, inputs)
    with pruned(model, "otprune", keep_ratio=1.0) as trace:
        full = answers(model, inputs)
    assert torch.equal(plain[1], full[1])
    assert trace.visual == sizes
    with pruned(model, "otprune", keep_ratio=0.5) as trace:
        tokens, scores = answers(model, inputs)
    assert [len(kept) for kept in trace.kept[0]] == [round(0.5 * size) for size in sizes]
    keeps = by_hand.keeps(sizes, trace.kept[0])
    assert largest(scores - by_hand.logits(keeps, tokens, "compact")) <= 1e-5
    assert largest(scores - plain[1]) > 0.01


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "llava_onevision"])
def test_a_budget_may_be_for_each_frame(name):
    model, inputs, sizes = filmed(name)
    by_hand = Unpruned(filmed(name))
    with pruned(model, "uniform", k=2, unit="frame") as trace:
        tokens, scores = answers(model, inputs)
    frames = {"qwen2_5_vl": [6] * 5, "qwen3_vl": [6] * 5, "llava_onevision": [16, 16, 17] * 2}
    assert trace.visual == [sizes[0], *frames[name]]
    assert [len(kept) for kept in trace.kept[0]] == [2] * len(trace.visual)
    keeps = by_hand.keeps(trace.visual, trace.kept[0])
    assert largest(scores - by_hand.logits(keeps, tokens, "compact")) <= 1e-5


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "llava_onevision"])
def test_videos_are_pruned_inside_the_language_model(name):
    model, inputs, sizes = filmed(name)
    by_hand = Unpruned(filmed(name))
    with pruned(model, "fastv", schedule="3:0.4") as trace:
        tokens, scores = answers(model, inputs)
    later = by_hand.keeps(sizes, trace.kept[3])
    for row, answer in enumerate(tokens):
        wanted = by_hand.masked(row, [by_hand.valid[row]] * 3 + [later[row]], answer)
        assert largest(scores[row] - wanted) <= 1e-5


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
def test_newlines_compete_or_are_kept_beside_the_budget(name):
    model, inputs, images = tiny(name)
    newline = [family_of(model).image(family_of(model).encode(inputs), range(i, i + 1), inputs)
               .newline for i in range(2)]  # fmt: skip
    assert all(0 < int(one.sum()) < count / 5 for one, count in zip(newline, images, strict=True))
    with pruned(model, "otprune", k=10, keep_newlines=True) as trace:
        model(**clone(inputs))
    for kept, one in zip(trace.kept[0], newline, strict=True):
        assert len(kept) == 10 + int(one.sum())
        assert set(one.nonzero()[:, 0].tolist()) <= set(kept.tolist())
    with pruned(model, "otprune", k=10) as trace:
        model(**clone(inputs))
    assert [len(kept) for kept in trace.kept[0]] == [10, 10]


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_merged_tokens_stand_where_their_image_stood(positions):
    model, inputs, images = tiny("llava")
    by_hand = Unpruned(tiny("llava"))
    merger = make_pruner("pooling")
    with pruned(model, merger, k=20, positions=positions) as trace:
        tokens, scores = answers(model, inputs)
    # By hand, tokens of each image are made the merged ones whose places they have.
    for image, (places, first) in enumerate(zip(trace.kept[0], [0, 64, 128], strict=True)):
        at = (by_hand.flat >= first) & (by_hand.flat < first + 64)
        vectors = by_hand.embeds[at]
        mixture = merger.merge(vectors, 20, signals=Signals(grid=(8, 8)))
        assert torch.equal(mixture.places, places)
        new = vectors.clone()
        new[places] = (mixture.weights @ vectors).to(vectors)
        by_hand.embeds[at] = new
        assert images[image] == 64
    keeps = by_hand.keeps(images, trace.kept[0])
    assert largest(scores - by_hand.logits(keeps, tokens, positions)) <= 1e-5


WAYS = {
    "fastv": {"schedule": "3:0.4"},
    "otprune": {"layer": 2, "k": 5},
    "pyramiddrop": {"schedule": "2:0.5/3:0.25", "positions": "original"},
    "transprune": {
        "schedule": "3:0.5", "observe_from": 1, "observe_to": 2, "positions": "original",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "method"),
    # One method shows that a further decoder is pruned rightly.
    [(name, method) for name in INSIDE for method in WAYS if name in FULL or method == "fastv"],
)
def test_dropping_inside_is_masking(name, method):
    model, inputs, images = tiny(name)
    by_hand = Unpruned(tiny(name))
    with pruned(model, method, **WAYS[method]) as trace:
        tokens, scores = answers(model, inputs)
    assert 0 not in trace.kept
    remaining, layers = by_hand.valid.clone(), []
    for layer in range(len(by_hand.decoder.layers)):
        if layer in trace.kept:
            remaining = remaining & by_hand.keeps(images, trace.kept[layer])
        layers.append(remaining)
    assert int(layers[-1].sum()) < int(layers[0].sum())
    for row, answer in enumerate(tokens):
        wanted = by_hand.masked(row, [one[row] for one in layers], answer)
        assert largest(scores[row] - wanted) <= 1e-5


@pytest.mark.parametrize("name", INSIDE)
def test_attention_for_methods_is_the_model_s_own(name):
    model, inputs, _ = tiny(name)
    adapter = family_of(model).adapter()
    model.set_attn_implementation("eager")
    given, number = {}, 2
    handle = adapter.layers[number].register_forward_pre_hook(
        lambda module, args, kwargs: given.update(kwargs, hidden=args[0]), with_kwargs=True
    )
    seen = model(**clone(inputs), output_attentions=True).attentions[number]
    handle.remove()
    model.set_attn_implementation("sdpa")
    hidden = given["hidden"]
    angles = tuple(one.expand(len(hidden), -1, -1) for one in given["position_embeddings"])
    mask = adapter.beyond_causal(number, given["attention_mask"])
    layer = LayerInput(adapter, number, hidden, angles, mask)
    for row, mask in enumerate(inputs["attention_mask"].bool()):
        places = mask.nonzero()[:, 0]
        # The last position, and one of an image.
        last = torch.tensor([len(places) - 1, len(places) // 2])
        ours = layer.attention(row, places, last)
        theirs = seen[row][:, places][:, :, places][:, last]
        assert largest(ours - theirs) <= 1e-5


@SEVERAL_IMAGES
def test_before_and_inside_together_with_beams():
    model, inputs, images = tiny("qwen2_5_vl")
    pruning = Pruning(
        (
            Stage(make_pruner("divprune"), keep_ratio=0.5),
            Stage(make_pruner("otprune"), k=3, layer=2),
        )
    )
    by_hand = Unpruned(tiny("qwen2_5_vl"))
    with pruned(model, pruning) as trace:
        out = model.generate(
            **clone(inputs), max_new_tokens=3, num_beams=2, do_sample=False, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
    tokens = out.sequences[:, inputs["input_ids"].shape[1] :]
    first = by_hand.keeps(images, trace.kept[0])
    later = by_hand.keeps(images, trace.kept[2])
    assert [len(keep) for keep in trace.kept[2]] == [3, 3, 3]
    for row, answer in enumerate(tokens):
        layers = [first[row]] * 2 + [later[row]] * 2
        chances = by_hand.masked(row, layers, answer).log_softmax(-1)
        total = chances.gather(1, answer[:, None]).sum()
        assert largest(total / 3 - out.sequences_scores[row]) <= 1e-5


def test_a_cache_goes_on_by_hand():
    model, inputs, _ = tiny("llava")
    with pruned(model, "fastv", schedule="2:0.3"):
        told = model.generate(**clone(inputs), max_new_tokens=3, do_sample=False)[:, -3:]
        cache = DynamicCache(config=model.config.get_text_config())
        step = model(**clone(inputs), **{CACHE: cache}, use_cache=True)
        token = step.logits[:, -1].argmax(-1)
        mask = torch.cat([inputs["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1)
        places = mask.sum(1, keepdim=True) - 1
        step = model(
            input_ids=token[:, None], attention_mask=mask, position_ids=places,
            **{CACHE: cache},
        )  # fmt: skip
    assert torch.equal(token, told[:, 0])
    assert torch.equal(step.logits[:, -1].argmax(-1), told[:, 1])
    lengths = [layer.keys.shape[2] for layer in cache.layers]
    assert lengths[0] == lengths[1] > lengths[2] == lengths[3]


def test_nothing_stays_behind():
    model, inputs, _ = tiny("llava")
    decoder = model.model.language_model
    before = (dict(vars(model)), dict(vars(decoder)))
    plain = model(**clone(inputs)).logits
    with pruned(model, "fastv", schedule="2:0.5"):
        assert "forward" in vars(decoder)
    with pruned(model, "fastv", schedule="2:0.5"), pytest.raises(ValueError, match="input_ids"):
        model(pixel_values=inputs["pixel_values"])
    assert (dict(vars(model)), dict(vars(decoder))) == before
    assert not any(module._forward_pre_hooks for module in decoder.modules())
    assert torch.equal(model(**clone(inputs)).logits, plain)


def test_blocks_may_be_nested_and_repeated():
    model, inputs, _ = tiny("llava")

    def told():
        return answers(model, inputs)[1]

    alone = {}
    for method, settings in (("fastv", {"schedule": "2:0.3"}), ("otprune", {"k": 7})):
        with pruned(model, method, **settings):
            alone[method] = told()
    with pruned(model, "fastv", schedule="2:0.3"):
        with pruned(model, "otprune", k=7):
            assert torch.equal(told(), alone["otprune"])
            with pruned(model, "fastv", schedule="2:0.3"):
                assert torch.equal(told(), alone["fastv"])
            assert torch.equal(told(), alone["otprune"])
        assert torch.equal(told(), alone["fastv"])
    assert largest(told() - alone["otprune"]) > 0.01


def test_threads_that_a_block_starts_prune_and_another_thread_s_block_is_refused():
    model, inputs, _ = tiny("llava")
    found, refused = [], []

    def generate():
        found.append(model.generate(**clone(inputs), max_new_tokens=3, do_sample=False))

    def enter():
        try:
            with pruned(model, "first_k", k=3):
                pass
        except RuntimeError as error:
            refused.append(str(error))

    with pruned(model, "otprune", k=7) as trace:
        here = model.generate(**clone(inputs), max_new_tokens=3, do_sample=False)
        threads = [threading.Thread(target=one) for one in (generate, generate, enter)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [torch.equal(one, here) for one in found] == [True, True]
    assert len(trace.kept[0][0]) == 7
    assert len(refused) == 1
    assert "another thread" in refused[0]
    with pruned(model, "first_k", k=3):
        pass


class Listed(BaseStreamer):
    def __init__(self):
        self.seen = []

    def put(self, value):
        self.seen.append(value.reshape(-1).tolist())

    def end(self):
        self.seen.append("end")


def test_prompts_lengths_and_streams_are_as_the_caller_expects():
    model, inputs, _ = tiny("llava")
    one = {key: value[-1:] for key, value in inputs.items()}
    prompt = one["input_ids"].shape[1]
    streamer = Listed()
    with pruned(model, "otprune", k=5):
        out = model.generate(**clone(one), max_new_tokens=4, do_sample=False, streamer=streamer)
        by_length = model.generate(**clone(one), max_length=prompt + 4, do_sample=False)
        config = GenerationConfig(max_length=prompt + 4, do_sample=False, pad_token_id=0)
        by_config = model.generate(**clone(one), generation_config=config)
        first = {key: value for key, value in one.items() if key != "input_ids"}
        by_place = model.generate(
            one["input_ids"].clone(), **first, max_new_tokens=4, do_sample=False
        )
    assert out.shape[1] == prompt + 4
    assert torch.equal(out[:, :prompt], one["input_ids"])
    assert streamer.seen[1:] == [[token] for token in out[0, prompt:].tolist()] + ["end"]
    for other in (by_length, by_config, by_place):
        assert torch.equal(other, out)


def test_labels_are_shortened_with_the_prompt_and_nothing_is_chosen_by_an_answer():
    model, inputs, images = tiny("llava")
    by_hand = Unpruned(tiny("llava"))
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -3:] = inputs["input_ids"][:, -3:]
    with pruned(model, "otprune", k=6) as trace:
        loss = model(**clone(inputs), labels=labels).loss
    keeps = by_hand.keeps(images, trace.kept[0])
    # Logits of the last four positions choose the last three tokens and one more.
    losses = []
    for row in range(2):
        at = keeps[row].nonzero()[:, 0][:-3]
        keep = torch.zeros_like(keeps)
        keep[:, at] = True
        logits = by_hand.logits(keep, inputs["input_ids"][:, -3:], "compact")[row]
        losses.append(torch.nn.functional.cross_entropy(logits, inputs["input_ids"][row, -3:]))
    assert largest(loss - sum(losses) / 2) <= 1e-5

    changed = clone(inputs)
    changed["input_ids"][:, -3:] = 77
    kept = []
    for given in (inputs, changed):
        labels[:, -3:] = given["input_ids"][:, -3:]
        with pruned(model, "fastv", schedule="2:0.2") as trace:
            model(**clone(given), labels=labels)
        kept.append([one.tolist() for one in trace.kept[2]])
    assert kept[0] == kept[1]


def test_images_may_be_encoded_once_and_pruned_often():
    model, inputs, _ = tiny("llava_next")
    output = model.model.get_image_features(
        pixel_values=inputs["pixel_values"], image_sizes=inputs["image_sizes"], return_dict=True
    )
    rest = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    for k in (5, 9):
        with pruned(model, "otprune", k=k):
            wanted = model(**clone(inputs)).logits
            encoded = {"image": output}
            assert torch.equal(model(**clone(rest), mm_encoder_outputs=encoded).logits, wanted)
    assert [len(one) for one in output.pooler_output] == [200, 336]


def test_the_pure_function_gives_what_the_block_gives():
    for name in ("llava", "qwen3_vl", "gemma3"):
        model, inputs, _ = tiny(name)
        pruning, trace = make_pruning("otprune", k=4), Trace()
        before = clone(inputs)
        new = prune_inputs(model, inputs, pruning, trace=trace)
        assert all(torch.equal(inputs[key], before[key]) for key in before)
        with pruned(model, pruning):
            wanted = model(**clone(inputs)).logits
        assert torch.equal(model(**new).logits, wanted)
        assert [len(kept) for kept in trace.kept[0]] == [4, 4, 4]


def test_signals_of_the_vision_encoder_are_its_own():
    model, inputs, _ = tiny("llava")
    tower, wanted = model.model.vision_tower, frozenset(
        {"cls_attention", "encoder_keys", "final_cls_attention", "final_keys", "features",
         "cls_features"}
    )  # fmt: skip
    family = family_of(model)
    assert family.gives == wanted | {"encode_at"}
    block = tower.encoder.layers[1]
    before = len(block._forward_hooks), len(block._forward_pre_hooks)
    encoded = family.encode(inputs, wanted)
    assert (len(block._forward_hooks), len(block._forward_pre_hooks)) == before
    tower.set_attn_implementation("eager")
    told = tower(inputs["pixel_values"], output_attentions=True, output_hidden_states=True)
    tower.set_attn_implementation("sdpa")
    for image, found in enumerate(encoded.signals):
        assert largest(found["cls_attention"] - told.attentions[1][image, :, 0, 1:]) <= 1e-6
        assert largest(found["features"] - told.hidden_states[2][image, 1:]) <= 1e-5
        assert largest(found["cls_features"] - told.hidden_states[2][image, :1]) <= 1e-5
        block = tower.encoder.layers[2]
        keys = block.self_attn.k_proj(block.layer_norm1(told.hidden_states[2][image]))
        assert largest(found["final_keys"] - keys[1:]) <= 1e-5
        tokens = family.project(found["features"])
        assert largest(tokens - encoded.parts[image]) <= 1e-5
    output = {"image": encoded.output}
    rest = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with pruned(model, "fastervlm", k=4) as trace:
        model(**clone(inputs))
        seen = [found["cls_attention"].mean(0).topk(4).indices.sort().values
                for found in encoded.signals]  # fmt: skip
        assert [kept.tolist() for kept in trace.kept[0]] == [one.tolist() for one in seen]
        with pytest.raises(UnsupportedModelError, match="give pixel_values"):
            model(**rest, mm_encoder_outputs=output)


class Words:
    """A tokenizer of numbers."""

    chat_template = "given"

    def __call__(self, text, add_special_tokens=False):
        return type("Ids", (), {"input_ids": [10 + len(word) for word in text.split()]})()

    def decode(self, ids, skip_special_tokens=False):
        return " ".join(f"w{number}" for number in ids)

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        return f"user: {messages[0]['content']} a bb"


def test_methods_that_read_the_question():
    model, inputs, _ = tiny("llava")
    with pruned(model, "mmtok", k=6, tokenizer=Words()) as trace:
        model(**clone(inputs))
    assert [len(kept) for kept in trace.kept[0]] == [6, 6, 6]
    with pruned(model, "mmtok", k=6), pytest.raises(UnsupportedModelError, match="tokenizer="):
        model(**clone(inputs))
    question = otprune.hf.question.Question(
        model.get_input_embeddings(), torch.tensor([40, 41, 11, 12]), Words()
    )
    assert question.question == "w40 w41"
    embed = model.get_input_embeddings()
    assert torch.equal(question.text_embeddings, embed(torch.tensor([40, 41, 11, 12])))
    assert torch.equal(question.embed_words(["ccc", "a"]), embed(torch.tensor([13, 11])))


@pytest.mark.parametrize(
    ("name", "method", "settings", "message"),
    [
        ("qwen3_vl", "fastervlm", {"k": 3}, "FasterVLM needs cls_attention, which qwen3_vl does n"),
        ("llava", "cdpruner", {"k": 3}, "CDPruner needs clip_patches, clip_text"),
        ("gemma3", "prumerge", {"k": 3}, "PruMerge needs .*, which gemma3 does n"),
        ("qwen3_vl", "pooling", {"k": 3}, "deepstack features"),
        ("qwen3_vl", "pyramiddrop", {"schedule": "2:0.5"}, "give positions='original'"),
        ("qwen3_vl", "otprune", {"k": 3, "layer": 1}, "at least 2 for qwen3_vl.*got 1"),
        ("qwen2_vl", "otprune", {"k": 3, "positions": "compact"}, "several axes"),
        ("qwen3_5", "fastv", {}, "qwen3_5 cannot be pruned inside.*qwen3_5_text"),
        ("llama4", "fastv", {}, "llama4 cannot be pruned inside.*llama4_text"),
        ("llava", "otprune", {"k": 3, "layer": 9}, "layer must be in 0..3"),
        ("llava", "otprune", {"k": 3, "unit": "tile"}, "unit must be one of image, frame, sample"),
        ("llava", "nothing", {"k": 3}, "unknown pruner 'nothing'"),
        ("llava", make_pruning("otprune", k=3), {"k": 3}, "a Pruning has its own settings.*k"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_runs(name, method, settings, message):
    model = tiny(name).model
    with pytest.raises(ValueError, match=f"(?s){message}"), pruned(model, method, **settings):
        raise AssertionError("the block must not be entered")


def test_inputs_that_do_not_fit_are_answered_in_a_sentence():
    model, inputs, _ = tiny("llava")
    few = clone(inputs)
    few["input_ids"][1][few["input_ids"][1] == PLACEHOLDER] = 7
    holes = clone(inputs)
    holes["attention_mask"][0, 20] = 0
    for given, message in (
        (few, "placeholder .id 500. for each of the 192 visual tokens of the images, got 128"),
        (holes, "zeros on one side"),
        (clone(inputs) | {"position_ids": inputs["attention_mask"]}, "position_ids follow"),
        (clone(inputs) | {"pixel_values_videos": inputs["pixel_values"]}, "no get_video_features"),
        (clone(inputs) | {"attention_mask": inputs["attention_mask"][:, 1:]}, "shape of input_ids"),
    ):
        with pruned(model, "otprune", k=3), pytest.raises(ValueError, match=message):
            model.generate(**given, max_new_tokens=1)
    with pytest.raises(ValueError, match="with otprune.hf.pruned"):
        prune_inputs(model, inputs, make_pruning("fastv"))
    text = LlamaForCausalLM(LlamaConfig(hidden_size=8, num_hidden_layers=1, vocab_size=9,
                                        num_attention_heads=1, intermediate_size=8))  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="get_image_features"), pruned(text, "fastv"):
        pass


def test_prompts_without_images_are_left_as_they_are():
    model, inputs, _ = tiny("llava")
    ids = torch.randint(10, 400, (2, 9), generator=torch.Generator().manual_seed(0))
    plain = model(input_ids=ids).logits
    told = model.generate(input_ids=ids, max_new_tokens=3, do_sample=False)
    with pruned(model, "fastv", schedule="2:0.1"):
        assert torch.equal(model(input_ids=ids).logits, plain)
        assert torch.equal(model.generate(input_ids=ids, max_new_tokens=3, do_sample=False), told)
