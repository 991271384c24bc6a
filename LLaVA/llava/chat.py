"""Ask a model about images: prompt, pixels, answer."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from PIL import Image

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import conv_templates
from llava.images import ImageProcessor, as_rgb, open_image, process_images
from llava.mm_utils import tokenizer_image_token
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.tokenizer import LlavaTokenizer

Loaded = tuple[LlavaTokenizer, LlavaLlamaForCausalLM, ImageProcessor, int]


def make_prompt(question: str, images: int, template: str = "vicuna_v1") -> str:
    """Return the prompt of one question, with ``<image>`` lines in front unless it has its own.

    Raises:
        ValueError: an unknown template; a question that places another number of images.
    """
    if template not in conv_templates:
        raise ValueError(f"template must be one of {', '.join(conv_templates)}; got {template!r}")
    placed = question.count(DEFAULT_IMAGE_TOKEN)
    if placed and placed != images:
        raise ValueError(f"the question places {placed} images, got {images}")
    if not placed:
        question = f"{DEFAULT_IMAGE_TOKEN}\n" * images + question
    conversation = conv_templates[template].copy()
    conversation.append_message(conversation.roles[0], question)
    conversation.append_message(conversation.roles[1], None)
    return conversation.get_prompt()


def ask(
    loaded: Loaded,
    question: str,
    images: Sequence[str | PathLike[str] | bytes | Image.Image] = (),
    *,
    template: str = "vicuna_v1",
    **generation: Any,
) -> str:
    """Return the model's answer to one question.

    Args:
        loaded: what `load_pretrained_model` returns.
        question: may contain ``<image>`` where the images go; else they come first.
        images: files, their bytes, or PIL images.
        template: name of the conversation template.
        **generation: as `LlavaLlamaForCausalLM.generate`: ``pruning``, ``max_new_tokens``, ...

    Raises:
        ValueError: see `make_prompt` and `generate`.
        ImageError: an image that cannot be read.
    """
    tokenizer, model, processor, _ = loaded
    pictures = [
        as_rgb(image) if isinstance(image, Image.Image) else open_image(image) for image in images
    ]
    prompt = make_prompt(question, len(pictures), template)
    ids = torch.tensor([tokenizer_image_token(prompt, tokenizer)])
    pixels = process_images(pictures, processor, model.config) if pictures else None
    settings = {"do_sample": False, "max_new_tokens": 512, **generation}
    answer = model.generate(
        ids.to(model.device),
        images=pixels,
        image_sizes=[picture.size for picture in pictures],
        **settings,
    )
    return tokenizer.batch_decode(answer, skip_special_tokens=True)[0].strip()
