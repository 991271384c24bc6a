"""A LLaVA written in transformers' layout, loaded by transformers alone."""

import functools

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration

from helpers import PARITY, loaded
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.transformers_folder import jinja_template, write_transformers_folder

CKPT = "checkpoints/tiny-llava-v1.5"
TEXTS = (
    "What is in this image?", " two  spaces ", "ünïcödé 漢字 🙂", "1, 2\n3", "",
    "a<image>b", "<image> <image>\nWhich?",
)  # fmt: skip


@functools.cache
def folder(root):
    tokenizer, model, processor, _ = loaded(CKPT)
    write_transformers_folder(root, tokenizer, model, processor, "vicuna_v1")
    return root


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("written"))


@pytest.mark.parametrize("text", TEXTS)
def test_texts_have_the_same_ids(written, text):
    slow, fast = loaded(CKPT)[0], AutoTokenizer.from_pretrained(written)
    placeholder = fast.convert_tokens_to_ids("<image>")
    ids = [
        placeholder if one == IMAGE_TOKEN_INDEX else one
        for one in tokenizer_image_token(text, slow)
    ]
    assert fast(text).input_ids == ids
    answer = [one for one in ids if one != placeholder]
    told = slow.decode(answer, skip_special_tokens=True)
    assert fast.decode(answer, skip_special_tokens=True) == told


@pytest.mark.parametrize("name", ["vicuna_v1", "mpt", "llava_v1", "mistral_instruct"])
def test_templates_give_the_same_prompts(written, name):
    if name not in conv_templates:
        pytest.skip(f"no template {name}")
    fast = AutoTokenizer.from_pretrained(written)
    turns = [("user", '<image>\nIs it "so"?'), ("assistant", "Yes."), ("user", "Why?")]
    for count in (1, 2, 3):
        conversation = conv_templates[name].copy()
        for place, (_, text) in enumerate(turns[:count]):
            conversation.append_message(conversation.roles[place % 2], text)
        is_open = count % 2 == 1
        if is_open:
            conversation.append_message(conversation.roles[1], None)
        messages = [{"role": role, "content": text} for role, text in turns[:count]]
        made = fast.apply_chat_template(
            messages,
            chat_template=jinja_template(conv_templates[name]),
            tokenize=False,
            add_generation_prompt=is_open,
        )
        assert made == conversation.get_prompt()


def test_it_answers_as_the_model_that_was_written(written):
    tokenizer, model, images, _ = loaded(CKPT)
    with Image.open(PARITY / "images/square.png") as opened:
        picture = opened.convert("RGB")
    processor = AutoProcessor.from_pretrained(written)
    twin = LlavaForConditionalGeneration.from_pretrained(written).eval()
    conversation = conv_templates["vicuna_v1"].copy()
    conversation.append_message(conversation.roles[0], "<image>\nWhat is this?")
    conversation.append_message(conversation.roles[1], None)
    prompt = conversation.get_prompt()
    inputs = processor(images=picture, text=prompt, return_tensors="pt")
    pixels = process_images([picture], images, model.config)
    assert torch.equal(inputs["pixel_values"], pixels)
    theirs = twin.generate(**inputs, max_new_tokens=8, do_sample=False)
    ids = torch.tensor(tokenizer_image_token(prompt, tokenizer))[None]
    ours = model.generate(inputs=ids, images=pixels, max_new_tokens=8, do_sample=False)
    assert theirs[0, inputs["input_ids"].shape[1] :].tolist() == ours[0].tolist()


def test_an_unknown_template_is_refused(tmp_path):
    tokenizer, model, processor, _ = loaded(CKPT)
    with pytest.raises(ValueError, match="chat_template must be one of .*; got 'x'"):
        write_transformers_folder(tmp_path / "out", tokenizer, model, processor, "x")
    assert not (tmp_path / "out").exists()
