"""Images that are encoded once, one at a time, against calls that bring all pixels."""

import pytest
import torch

from hf.tiny_vlms import FAMILIES, INSIDE, clone, tiny
from otprune.hf import UnsupportedModelError, pruned
from otprune.hf.calls import EncodedCalls, PromptBatch
from otprune.hf.encoded import ImageInputs
from otprune.pruning import Trace, make_pruning

STEPS = 4
TEXT = {"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids", "labels"}
TILES = ("idefics3", "smolvlm")
"""Families of which a call that brings pixels cannot tell images apart, only prompts."""


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def apart(name, inputs, images):
    """Return what a processor would give for each image alone."""
    values = {key: value for key, value in inputs.items() if key not in TEXT}
    if name in TILES:
        images = [images[0] + images[1], images[2]]
    count = len(images)
    if "image_grid_thw" in values or name == "internvl":
        # Patches, or tiles, of all images follow each other.
        pixels = values.pop("pixel_values")
        rows = [tokens * len(pixels) // sum(images) for tokens in images]
        if "image_grid_thw" in values:
            rows = values["image_grid_thw"].prod(-1).tolist()
        return [
            ImageInputs(
                {"pixel_values": part} | {key: one[i : i + 1] for key, one in values.items()},
                images[i],
            )
            for i, part in enumerate(pixels.split(rows))
        ]
    assert all(len(value) == count for value in values.values()), {
        key: value.shape for key, value in values.items()
    }
    return [
        ImageInputs({key: value[i : i + 1] for key, value in values.items()}, images[i])
        for i in range(count)
    ]


def written(model, inputs, **settings):
    done = model.generate(
        **inputs, max_new_tokens=STEPS, do_sample=False, output_scores=True,
        return_dict_in_generate=True, **settings,
    )  # fmt: skip
    return done.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(done.scores, 1)


def batch_of(name, wanted=frozenset()):
    model, inputs, images = tiny(name)
    calls = EncodedCalls(model)
    encoded = calls.encode(apart(name, inputs, images), wanted)
    mask = inputs["attention_mask"].bool()
    return calls, PromptBatch(inputs["input_ids"], mask, encoded, [None] * len(encoded))


def compare(name, method, **settings):
    model, inputs, _ = tiny(name)
    unit = "sample" if name in TILES else None
    calls, batch = batch_of(name, make_pruning(method, **settings).needs)
    with pruned(model, method, unit=unit, **settings) as expected:
        tokens, scores = written(model, clone(inputs))
        kept, lengths = expected.kept, expected.lengths
    trace = Trace()
    with calls.call(batch, make_pruning(method, **settings), trace) as arguments:
        again, found = written(model, arguments)
    assert torch.equal(tokens, again)
    assert float((scores - found).abs().max()) <= 1e-5
    assert trace.lengths == lengths
    for layer, keeps in kept.items():
        assert all(map(torch.equal, keeps, trace.kept[layer]))


@pytest.mark.parametrize("name", FAMILIES)
def test_unpruned(name):
    model, inputs, _ = tiny(name)
    tokens, scores = written(model, clone(inputs))
    calls, batch = batch_of(name)
    trace = Trace()
    with calls.call(batch, None, trace) as arguments:
        again, found = written(model, arguments)
    assert torch.equal(tokens, again)
    assert float((scores - found).abs().max()) <= 1e-5
    assert trace.visual == [len(image) for image in batch.images]
    assert trace.lengths[0] == inputs["attention_mask"].sum(1).tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_pruned_before_the_language_model(name):
    # Equal counts, or tiles of different images would be mixed up where they are one tensor.
    compare(name, "random", keep_ratio=0.4, seed=3)


@pytest.mark.parametrize("name", INSIDE)
def test_pruned_inside_the_language_model(name):
    compare(name, "divprune", keep_ratio=0.4, layer=3, positions="original")


def test_a_prompt_without_an_image_beside_others():
    model, inputs, _ = tiny("qwen3_vl")
    calls, batch = batch_of("qwen3_vl")
    length = inputs["input_ids"].shape[1]
    text = torch.randint(10, 400, (7,), generator=torch.Generator().manual_seed(2))
    row = torch.cat([torch.zeros(length - 7, dtype=torch.long), text])[None]
    mask = torch.arange(length)[None] >= length - 7
    alone, expected = written(model, {"input_ids": text[None]})
    for images in (batch.images, []):
        ids = torch.cat([batch.ids, row]) if images else row
        both = torch.cat([batch.mask, mask]) if images else mask
        some = PromptBatch(ids, both, images, [None] * len(images))
        for pruning in (None, make_pruning("random", keep_ratio=0.4)):
            with calls.call(some, pruning, Trace()) as arguments:
                tokens, scores = written(model, arguments)
            assert torch.equal(tokens[-1:], alone)
            assert float((scores[-1:] - expected).abs().max()) <= 1e-5


def test_an_answer_is_not_seen_by_methods():
    calls, batch = batch_of("llava")
    pruning = make_pruning("sparsevlm", schedule="2:0.4")
    kept = []
    for answers, changed in ((3, 0), (3, 7), (2, 7)):
        ids = batch.ids.clone()
        ids[:, -3] += changed
        answers = [answers] * len(ids)
        some = PromptBatch(ids, batch.mask, batch.images, batch.image_ids, answers)
        trace = Trace()
        with calls.call(some, pruning, trace) as arguments:
            assert "labels" not in arguments
            calls.family.model(**arguments)
        kept.append(trace.scores)
    layers = [layer for layer in kept[0] if kept[0][layer][0] is not None]
    assert layers
    assert all(map(torch.equal, kept[0][layers[0]], kept[1][layers[0]]))
    # Without the answer being told, the changed word belongs to the question.
    assert not all(map(torch.equal, kept[0][layers[0]], kept[2][layers[0]]))


def test_placeholders_that_do_not_fit_are_refused():
    model, inputs, images = tiny("qwen3_vl")
    calls, batch = batch_of("qwen3_vl")
    few = PromptBatch(batch.ids, batch.mask, batch.images[:-1], [None] * 2)
    with (
        pytest.raises(ValueError, match="one placeholder .* for each"),
        calls.call(few, None, Trace()),
    ):
        pass
    one = apart("qwen3_vl", inputs, images)[0]
    with pytest.raises(ValueError, match=f"for {one.tokens + 1} placeholders"):
        calls.encode([ImageInputs(one.values, one.tokens + 1)])


def test_beams_of_unequal_counts_are_refused_where_they_would_be_mixed_up():
    calls, batch = batch_of("internvl")
    pruning = make_pruning("random", keep_ratio=0.4)
    with (
        pytest.raises(UnsupportedModelError, match="mixes up images"),
        calls.call(batch, pruning, Trace(), repeats=2),
    ):
        pass


def test_bytes_count_what_goes_beside_the_tokens():
    _, batch = batch_of("qwen3_vl")
    image = batch.images[0]
    assert image.beside
    rows = sum(one.nbytes for one in image.beside)
    assert image.nbytes == image.tokens.nbytes + rows


@pytest.mark.parametrize(
    ("name", "method"),
    [("llava_next", "fastervlm"), ("gemma3", "holov"), ("qwen2_5_vl", "visionzip")],
)
def test_signals_of_the_vision_encoder_are_kept_with_the_image(name, method):
    compare(name, method, k=5)
