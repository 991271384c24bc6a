"""The family for all models of transformers, against transformers' own processors and models."""

import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from helpers import picture, request
from otprune.hf import pruned
from otprune.pruning import Trace, make_pruning
from otprune_lmms.engine import Engine
from otprune_lmms.engine.responder import shared_beginning
from otprune_lmms.journal import Journal
from otprune_lmms.models import ModelSource, check_source, load_model
from otprune_lmms.models.processors import SEVERAL, load_processor
from otprune_lmms.models.protocol import Generation, ModelInput
from otprune_lmms.pruning_config import PruningConfig
from tiny_checkpoints import write_checkpoint

FAMILIES = (
    "llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl",
    "gemma3", "idefics3",
)  # fmt: skip
SHORT = Generation(max_new_tokens=5)
QUESTION = "What is in this image?"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Return a folder with a family's tiny checkpoint, written once."""
    root = tmp_path_factory.mktemp("transformers")

    @functools.cache
    def written(family: str) -> Path:
        write_checkpoint(root / family, family)
        return root / family

    return written


@pytest.fixture(scope="session")
def model(folder):
    """Return a family's tiny model, loaded once."""

    @functools.cache
    def loaded(family: str):
        return load_model(ModelSource(str(folder(family)), device="cpu"))

    return loaded


def images_of(seed: int, count: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    sizes = ((90, 150), (120, 60), (112, 112))
    return [
        Image.fromarray(rng.integers(0, 255, (*sizes[(seed + i) % 3], 3), dtype=np.uint8))
        for i in range(count)
    ]


def input_of(model, seed=0, images=1, context=QUESTION, answer=None) -> ModelInput:
    prompt = model.render(context, images, {})
    pictures = images_of(seed, images)
    visual = model.encode([model.preprocess(i, prompt.image_view) for i in pictures], frozenset())
    ids, tail = model.token_ids(prompt, visual), 0
    if answer is not None:
        asked = ids
        ids = model.token_ids(model.render(context, images, {}, answer), visual)
        tail = len(ids) - shared_beginning(asked, ids)
    numbers = tuple(100 * seed + i for i in range(images))
    return ModelInput(ids, tuple(visual), numbers, answer=tail)


def plain_inputs(model, seed=0, images=1, context=QUESTION):
    """What the checkpoint's own processor makes of a request; the prompt is the wrapper's."""
    text = model.render(context, images, {}).text
    made = model.processor._processor(
        images=[images_of(seed, images)], text=[text], return_tensors="pt"
    )
    return dict(made)


def plainly(model, inputs, **settings) -> str:
    out = model.model.generate(**inputs, max_new_tokens=5, do_sample=False, **settings)
    answer = out[0, inputs["input_ids"].shape[1] :]
    return model.processor.tokenizer.decode(answer, skip_special_tokens=True)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_unpruned_it_reads_and_answers_as_transformers_does(model, family, images):
    tiny = model(family)
    inputs, own = plain_inputs(tiny, images=images), input_of(tiny, images=images)
    assert own.ids.tolist() == inputs["input_ids"][0].tolist()
    trace = Trace()
    (written,) = tiny.generate([own], None, SHORT, trace)
    assert written.text == plainly(tiny, inputs)
    assert trace.visual == [len(image) for image in own.visual]
    assert trace.truncated == [0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["random", "divprune"])
def test_pruned_it_answers_as_a_user_of_transformers_gets(model, family, method):
    tiny = model(family)
    inputs = plain_inputs(tiny)
    unit = "sample" if family == "idefics3" else None
    settings = {"keep_ratio": 0.3} | ({"seed": 5} if method == "random" else {})
    with pruned(tiny.model, method, unit=unit, image_ids=[0], **settings) as expected:
        told = plainly(tiny, inputs)
    trace = Trace()
    (written,) = tiny.generate([input_of(tiny)], make_pruning(method, **settings), SHORT, trace)
    assert written.text == told
    assert all(map(torch.equal, trace.kept[0], expected.kept[0]))


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("llava", "cdpruner"), ("llava_next", "holov"), ("llava_onevision", "visionzip"),
        ("qwen2_5_vl", "visionzip"), ("qwen3_vl", "vispruner"), ("internvl", "fastervlm"),
        ("gemma3", "mmtok"), ("idefics3", "holov"),
    ],
)  # fmt: skip
def test_signals_of_images_encoded_apart_choose_the_same_tokens(model, family, method):
    tiny = model(family)
    pruning = make_pruning(method, k=6)
    if "clip_text" in pruning.needs:
        with pytest.raises(ValueError, match="clip_text"):
            tiny.check(pruning)
        return
    tiny.check(pruning)
    inputs = plain_inputs(tiny)
    unit = "sample" if family == "idefics3" else None
    processor = tiny.processor.tokenizer
    with pruned(tiny.model, pruning, unit=unit, tokenizer=processor, image_ids=[0]) as expected:
        told = plainly(tiny, inputs)
    prompt = tiny.render(QUESTION, 1, {})
    pixels = [tiny.preprocess(one) for one in images_of(0, 1)]
    # Beside another image of the same shape, as in a batch.
    visual, _ = tiny.encode([*pixels, *pixels], pruning.needs)
    own = ModelInput(tiny.token_ids(prompt, [visual]), (visual,), (0,))
    trace = Trace()
    (written,) = tiny.generate([own], pruning, SHORT, trace)
    assert written.text == told
    assert all(map(torch.equal, trace.kept[0], expected.kept[0]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_answers_as_its_rows(model, family):
    tiny = model(family)
    pruning = make_pruning("otprune", keep_ratio=0.4)
    rows = [input_of(tiny, 0), input_of(tiny, 1, images=2), input_of(tiny, 2, 1, "Which one?")]
    for one in (None, pruning):
        whole, trace = tiny.generate(rows, one, SHORT, Trace()), Trace()
        assert whole == [tiny.generate([row], one, SHORT, trace)[0] for row in rows]


@pytest.mark.parametrize("family", ["llava", "qwen3_vl", "gemma3"])
def test_likelihoods_are_those_of_a_plain_call(model, family):
    tiny = model(family)
    own = input_of(tiny, answer="yes")
    trace = Trace()
    (found,) = tiny.loglikelihood([own], None, trace)
    inputs = plain_inputs(tiny)
    whole = tiny.processor._processor(
        images=[images_of(0, 1)],
        text=[tiny.render(QUESTION, 1, {}, "yes").text],
        return_tensors="pt",
    )
    begin = shared_beginning(inputs["input_ids"][0], whole["input_ids"][0])
    with torch.no_grad():
        logits = tiny.model(**whole).logits[0, begin - 1 : -1]
    expected = torch.nn.functional.cross_entropy(logits, whole["input_ids"][0, begin:])
    assert found.loss == pytest.approx(float(expected), abs=1e-5)
    assert found.tokens == own.answer == len(whole["input_ids"][0]) - begin
    assert trace.visual == [len(own.visual[0])]
    pruned_one = tiny.loglikelihood([own], make_pruning("random", keep_ratio=0.2), Trace())[0]
    assert pruned_one.loss != found.loss


def test_methods_do_not_see_the_continuation(model):
    tiny = model("llava")
    pruning = make_pruning("mmtok", keep_ratio=0.2)
    traces = []
    for answer in ("yes", "no never"):
        own = input_of(tiny, answer=answer)
        visual = tiny.encode([tiny.preprocess(one) for one in images_of(0, 1)], pruning.needs)
        trace = Trace()
        tiny.loglikelihood(
            [ModelInput(own.ids, tuple(visual), (1,), answer=own.answer)], pruning, trace
        )
        traces.append(trace)
    assert torch.equal(traces[0].kept[0][0], traces[1].kept[0][0])


def test_prefill_gives_the_bytes_of_its_cache(model):
    tiny = model("qwen3_vl")
    own = input_of(tiny)
    text = tiny.model.config.get_text_config()
    a_token = 2 * 4 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    assert tiny.prefill([own], None, Trace()) == a_token * len(own.ids)
    fewer = tiny.prefill([own], make_pruning("random", k=5), Trace())
    assert fewer == a_token * (len(own.ids) - len(own.visual[0]) + 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_has_a_patch_at_its_place(model, family):
    tiny = model(family)
    image = images_of(0, 1)[0]
    pixels = tiny.preprocess(image)
    (visual,) = tiny.encode([pixels], frozenset())
    views = tiny.image_views(pixels)
    newlines = 0 if visual.newline is None else int(visual.newline.sum())
    shown = np.concatenate([view.tokens[view.tokens >= 0] for view in views])
    assert sorted(shown) == sorted(set(range(len(visual))) - newline_places(visual))
    assert len(shown) == len(visual) - newlines
    for view in views:
        assert view.pixels.min() >= 0
        assert view.pixels.max() <= 1
        assert view.pixels.shape[0] % view.tokens.shape[0] == 0
        assert view.pixels.shape[1] % view.tokens.shape[1] == 0


def newline_places(visual) -> set[int]:
    return set() if visual.newline is None else set(visual.newline.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("family", ["llava", "qwen3_vl", "llava_next"])
def test_a_patch_that_changes_changes_its_token_most(model, family):
    # The picture of a view is the image: what is bright in it is bright there.
    tiny = model(family)
    dark = Image.new("RGB", (112, 112))
    bright = dark.copy()
    bright.paste((255, 255, 255), (80, 20, 112, 50))
    view = tiny.image_views(tiny.preprocess(bright))[0]
    rows, columns = view.tokens.shape
    blocks = view.pixels.reshape(
        rows, view.pixels.shape[0] // rows, columns, view.pixels.shape[1] // columns, 3
    ).mean((1, 3, 4))
    high, low = np.unravel_index(blocks.argmax(), blocks.shape)
    assert 20 / 112 * rows - 1 <= high <= 50 / 112 * rows
    assert 80 / 112 * columns - 1 <= low


def test_qwens_prompt_is_that_of_its_wrapper(model):
    text = model("qwen2_5_vl").render("<image>Is it?", 1, {}).text
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|vision_end|>Is it?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_llava_keeps_images_where_the_context_has_them(model):
    text = model("llava").render("Look at <image>and say.", 1, {}).text
    # The template puts an end of line behind each image.
    assert text == "USER: Look at <image>\nand say. ASSISTANT: "
    with pytest.raises(ValueError, match="places 2 images, the document has 1"):
        model("llava").render("<image> and <image>", 1, {})


def test_a_text_template_gets_images_in_the_text(model):
    tiny = model("llava")
    tokenizer = tiny.processor.tokenizer
    own, processor = tokenizer.chat_template, tiny.processor._processor
    theirs = processor.chat_template
    template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %} [assistant]{% endif %}"
    )
    try:
        processor.chat_template = tokenizer.chat_template = template
        assert tiny.render(QUESTION, 2, {}).text == (
            f"[user] <image> <image>\n{QUESTION} [assistant]"
        )
        processor.chat_template = tokenizer.chat_template = None
        assert tiny.render(QUESTION, 1, {}).text.endswith(
            f"user's questions. USER: <image>\n{QUESTION} ASSISTANT:"
        )
    finally:
        processor.chat_template, tokenizer.chat_template = theirs, own


@pytest.mark.parametrize("family", ["qwen3_vl", "internvl", "gemma3"])
def test_a_context_with_the_models_own_image_text_is_refused(model, family):
    tiny = model(family)
    token = tiny.processor.image_token
    with pytest.raises(ValueError, match=re.escape(repr(token))):
        tiny.render(f"What is {token}?", 1, {})


def test_images_of_one_prompt_are_a_tile_each_in_onevision(model):
    tiny = model("llava_onevision")
    assert tiny.render(QUESTION, 1, {}).image_view is None
    assert tiny.render(QUESTION, 2, {}).image_view == SEVERAL
    sizes = [len(image) for image in input_of(tiny, images=2).visual]
    assert sizes == [65, 65]


def test_the_area_of_images_is_the_wrappers_within_the_checkpoints_own(folder):
    from transformers import AutoConfig

    path = str(folder("qwen3_vl"))
    config = AutoConfig.from_pretrained(path)

    def limits(given):
        size = load_processor(path, config, None, given).image_processor.size
        return size["shortest_edge"], size["longest_edge"]

    assert limits((None, None)) == (65536, 65536)
    assert limits((4096, None)) == (4096, 65536)
    assert limits((4096, 16384)) == (4096, 16384)
    with pytest.raises(ValueError, match="min_pixels must be at most max_pixels, got 65536 and 99"):
        limits((None, 99))
    llava = str(folder("llava"))
    with pytest.raises(ValueError, match="for families that take images of any size"):
        load_processor(llava, AutoConfig.from_pretrained(llava), None, (9, None))


def test_other_areas_are_another_model(folder):
    path = str(folder("qwen3_vl"))
    found = {
        load_model(ModelSource(path, device="cpu", min_pixels=least)).fingerprint
        for least in (None, 3136)
    }
    assert len(found) == 2


def test_a_stop_text_ends_an_answer_but_not_by_the_prompt(model):
    tiny = model("llava")
    own = input_of(tiny)
    (whole,) = tiny.generate([own], None, Generation(max_new_tokens=8), Trace())
    stop = whole.text[2:4]
    assert stop in whole.text
    (cut,) = tiny.generate([own], None, Generation(max_new_tokens=8, until=(stop,)), Trace())
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.tokens < whole.tokens
    (same,) = tiny.generate([own], None, Generation(max_new_tokens=8, until=("image",)), Trace())
    assert same == whole, "a stop text in the question must not count"


def test_qwens_wrapper_does_not_stop_at_an_empty_line(model):
    tiny = model("qwen3_vl")
    assert tiny.processor.rules.ignored_stops == ("\n\n",)
    (written,) = tiny.generate(
        [input_of(tiny)], None, Generation(max_new_tokens=5, until=("\n\n",)), Trace()
    )
    assert written == tiny.generate([input_of(tiny)], None, SHORT, Trace())[0]


def test_long_prompts_are_cut_at_the_end_but_images_are_not(model, monkeypatch):
    tiny = model("llava")
    monkeypatch.setattr(tiny, "positions", 100)
    own = input_of(tiny, context="what " * 60)
    assert len(own.ids) == 101
    trace = Trace()
    tiny.generate([own], None, SHORT, trace)
    assert trace.truncated == [1]
    with pytest.raises(ValueError, match="images are among those that are cut"):
        input_of(tiny, images=2)
    with pytest.raises(ValueError, match="the continuation at its end is cut"):
        tiny.loglikelihood([input_of(tiny, context="what " * 60, answer="yes")], None, Trace())


def test_beams_and_draws(model):
    tiny = model("qwen3_vl")
    own = input_of(tiny)
    pruning = make_pruning("random", keep_ratio=0.4)
    for one in (None, pruning):
        (written,) = tiny.generate([own], one, Generation(max_new_tokens=4, num_beams=3), Trace())
        assert written.tokens
    drawn = set()
    for seed in range(3):
        torch.manual_seed(seed)
        settings = Generation(max_new_tokens=5, temperature=2.0, top_p=0.9)
        drawn.add(tiny.generate([own], pruning, settings, Trace())[0].text)
    assert len(drawn) > 1


def test_the_engine_answers_once_and_goes_on(model, tmp_path):
    tiny = model("qwen2_5_vl")
    configs = [PruningConfig(), PruningConfig.make("otprune", keep_ratio=0.3)]
    requests = [
        request(0),
        request(1, pictures=("port.png",)),
        request(2, pictures=("land.png", "square.png")),
        request(3, context="Nothing to see?", pictures=()),
    ]
    with Journal(tmp_path / "journal") as journal:
        engine = Engine(tiny, model_name="tiny", batch_size=3, journal=journal, progress=False)
        answers = engine.run(requests, configs)
        assert answers.counts.generated == 8
        # Three requests show three images; each is encoded once for both settings.
        assert answers.counts.encoded == answers.counts.images == 3
    with Journal(tmp_path / "journal") as journal:
        again = Engine(tiny, model_name="tiny", batch_size=1, journal=journal, progress=False)
        found = again.run(requests, configs)
        assert found.counts.reused == 8
        assert found.counts.generated == 0
    alone = Engine(tiny, model_name="tiny", batch_size=1, progress=False).run(requests, configs)
    for key, answer in answers.items():
        assert (alone[key].text, alone[key].kept) == (answer.text, answer.kept)
        assert found[key].text == answer.text
    unpruned, fewer = (answers[config, requests[0]] for config in configs)
    assert fewer.kept == (round(0.3 * unpruned.kept[0]),)


def test_the_longest_answer_is_the_wrappers_where_a_task_does_not_say(model):
    from otprune_lmms.engine.prepare import RequestPreparer

    for family, longest in (("llava", 1024), ("qwen3_vl", 128)):
        preparer = RequestPreparer(model(family), "", "first_frame")
        one = request(0, generation={"max_new_tokens": None})
        assert preparer.prepare(one).generation.max_new_tokens == longest


def damaged(folder: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "damaged"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_missing_weights_are_refused(folder, tmp_path):
    copy = damaged(folder("llava"), tmp_path)
    weights = load_file(copy / "model.safetensors")
    gone = min(name for name in weights if "projector" in name)
    del weights[gone]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="must have all weights, got none that fit .*projector"):
        load_model(ModelSource(str(copy), device="cpu"))


@pytest.mark.parametrize(
    "file", ["model.safetensors", "tokenizer.json", "preprocessor_config.json"]
)
def test_damaged_files_are_one_sentence(folder, tmp_path, file):
    copy = damaged(folder("llava"), tmp_path)
    (copy / file).write_bytes((copy / file).read_bytes()[:40])
    with pytest.raises(ValueError, match=re.escape(str(copy))):
        load_model(ModelSource(str(copy), device="cpu"))


def test_settings_of_llava_are_refused(folder):
    path = str(folder("qwen3_vl"))
    with pytest.raises(ValueError, match="chat_template names a template of LLaVA"):
        check_source(ModelSource(path, chat_template="vicuna_v1"))
    with pytest.raises(ValueError, match="model_base is for adapters of LLaVA"):
        check_source(ModelSource(path, model_base="x", family="transformers"))
    with pytest.raises(ValueError, match="min_pixels must be at least 1, got 0"):
        check_source(ModelSource(path, min_pixels=0))
    with pytest.raises(ValueError, match=r"layer must be in 0\.\.3 .* of 4 layers, got 7"):
        check_source(ModelSource(path), (make_pruning("divprune", keep_ratio=0.5, layer=7),))


def test_the_family_follows_from_the_configuration(folder, tmp_path):
    from helpers import TINY
    from otprune_lmms.models import _family

    def name(pretrained, **settings):
        return _family(ModelSource(str(pretrained), **settings), ask=False)

    assert name(TINY) == "llava"
    assert name("llava-mini") == "llava"
    assert name(folder("llava")) == "transformers"
    assert name(folder("qwen3_vl")) == "transformers"
    assert name(folder("llava"), family="llava") == "llava"
    assert name("someone/else") is None
    assert name("someone/else", model_base="x") == "llava"
    assert name(tmp_path) == "llava"
    (tmp_path / "config.json").write_text("[]")
    assert name(tmp_path) == "llava"
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llava", "mm_vision_tower": "x"})
    )
    assert name(tmp_path) == "llava"


def test_a_pruning_that_the_family_refuses_is_told_before_anything_runs(model):
    with pytest.raises(ValueError, match="positions must be original for qwen3_vl"):
        model("qwen3_vl").check(make_pruning("divprune", keep_ratio=0.5, positions="compact"))
    with pytest.raises(ValueError, match="needs .* which gemma3 does not give"):
        model("gemma3").check(make_pruning("prumerge", keep_ratio=0.5))


def test_a_picture_of_the_engine_has_its_pixels(model):
    tiny = model("qwen3_vl")
    pixels = tiny.preprocess(picture("land.png"))
    assert pixels.size == picture("land.png").size
    assert pixels.values is pixels.inputs["pixel_values"]
