"""The tiny checkpoints are complete: transformers loads all their parts, which fit together."""

from pathlib import Path

import pytest
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from tiny_checkpoints import FAMILIES, write_checkpoint
from tiny_vlms import PLACEHOLDER

WHOLE = ("llava", "llava_next", "gemma3", "idefics3")
"""Families whose `AutoProcessor` does without torchvision."""

BEGIN_OF_IMAGE = 504
"""What Gemma 3 has in the place of an image until its processor writes the image's tokens."""

CHAT = [{
    "role": "user",
    "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}],
}]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_of_a_checkpoint_loads(family, tmp_path):
    write_checkpoint(tmp_path, family)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert {PLACEHOLDER, BEGIN_OF_IMAGE} & {*ids}
    assert len(tokenizer) == 512
    pixels = AutoImageProcessor.from_pretrained(tmp_path)(_picture(), return_tensors="pt")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert pixels["pixel_values"].isfinite().all()
    assert model.config.get_text_config().vocab_size == len(tokenizer)


@pytest.mark.parametrize("family", WHOLE)
def test_a_whole_processor_makes_what_its_model_takes(family, tmp_path):
    write_checkpoint(tmp_path, family)
    processor = AutoProcessor.from_pretrained(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    text = processor.apply_chat_template(CHAT, add_generation_prompt=True)
    inputs = processor(images=[[_picture()]], text=[text], return_tensors="pt")
    assert int((inputs["input_ids"] == PLACEHOLDER).sum()) > 1
    out = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert out.shape[1] == inputs["input_ids"].shape[1] + 4


def test_a_checkpoint_is_the_same_at_each_call(tmp_path):
    for name in ("one", "two"):
        write_checkpoint(tmp_path / name, "qwen2_5_vl")
    assert _content(tmp_path / "one") == _content(tmp_path / "two")


def _picture() -> Image.Image:
    return Image.linear_gradient("L").resize((150, 100)).convert("RGB")


def _content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}
