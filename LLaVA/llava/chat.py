"""Ask a model about images: prompt, pixels, answer."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

import numpy as np
import torch
from PIL import Image

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import conv_templates
from llava.images import ImageProcessor, picture, process_images
from llava.mm_utils import mark_images, tokenizer_image_token
from llava.model.language_model.llava_llama import MODEL_PRUNING, LlavaLlamaForCausalLM
from llava.tokenizer import LlavaTokenizer
from otprune.pruning import Pruning, pruning_by_name

Loaded = tuple[LlavaTokenizer, LlavaLlamaForCausalLM, ImageProcessor, int]

OneImage = str | PathLike[str] | bytes | Image.Image | np.ndarray
"""A file's path, its bytes, a PIL image, or an array of uint8: [h w], [h w 3] or [h w 4]."""


def make_prompt(question: str, images: int, template: str = "vicuna_v1", config: Any = None) -> str:
    """Return the prompt of one question, with ``<image>`` lines in front unless it has its own.

    Args:
        question: may contain ``<image>``.
        images: how many there are.
        template: name of the conversation template.
        config: the model's configuration, which may ask for tokens around images.

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
    conversation.append_message(conversation.roles[0], mark_images(question, config))
    conversation.append_message(conversation.roles[1], None)
    return conversation.get_prompt()


def ask(
    loaded: Loaded,
    question: str,
    images: OneImage | Iterable[OneImage] | None = None,
    *,
    template: str = "vicuna_v1",
    pruning: Pruning | str | None | Any = MODEL_PRUNING,
    keep_ratio: float | None = None,
    k: int | None = None,
    layer: int = 0,
    **generation: Any,
) -> str:
    """Return the model's answer to one question.

    Args:
        loaded: what `load_pretrained_model` returns.
        question: may contain ``<image>`` where the images go; else they come first.
        images: one image or several.
        template: name of the conversation template.
        pruning: what to prune instead of the model's own: a pruning, a method's name, or None.
        keep_ratio: with a name, the share of visual tokens to keep; without ``keep_ratio`` and
            ``k`` a layer pruner has its own schedule, any other method keeps 0.098 of them.
        k: with a name, how many of each image to keep.
        layer: with a name, the decoder layer at whose input is pruned; 0 is before all of them.
        **generation: as `LlavaLlamaForCausalLM.generate`: ``max_new_tokens``, ``trace``, ...

    Raises:
        ValueError: see `make_prompt`, `pruning_by_name` and `generate`; a budget without a method's
            name; logits that are not finite numbers.
        ImageError: an image that cannot be read.
    """
    tokenizer, model, processor, _ = loaded
    chosen = _pruning(pruning, keep_ratio, k, layer)
    pictures = [picture(one, f"image {n}") for n, one in enumerate(_several(images))]
    prompt = make_prompt(question, len(pictures), template, model.config)
    ids = torch.tensor([tokenizer_image_token(prompt, tokenizer)])
    pixels = process_images(pictures, processor, model.config) if pictures else None
    settings = {"do_sample": False, "max_new_tokens": 512, **generation}
    with _finite_logits(model):
        answer = model.generate(
            ids.to(model.device),
            images=pixels,
            image_sizes=[one.size for one in pictures],
            pruning=chosen,
            **settings,
        )
    return tokenizer.batch_decode(answer, skip_special_tokens=True)[0].strip()


def _several(images: object) -> list[Any]:
    if images is None:
        return []
    single = isinstance(images, str | bytes | PathLike | Image.Image | np.ndarray)
    return [images] if single or not isinstance(images, Iterable) else list(images)


def _pruning(pruning: Any, keep_ratio: float | None, k: int | None, layer: int) -> Any:
    budgets = keep_ratio is not None or k is not None
    if not isinstance(pruning, str):
        if budgets or layer:
            raise ValueError("keep_ratio, k and layer go with a method's name as pruning")
        return pruning
    return pruning_by_name(pruning, keep_ratio=keep_ratio, k=k, layer=layer)


@contextmanager
def _finite_logits(model: LlavaLlamaForCausalLM) -> Iterator[None]:
    """In this context logits that are not finite are an error, once the answer is written."""
    steps: list[torch.Tensor] = []

    def see(module: Any, arguments: Any, output: Any) -> None:
        steps.append(output.logits[:, -1].isfinite().all())

    hook = model.register_forward_hook(see)
    try:
        yield
    finally:
        hook.remove()
    if steps and not bool(torch.stack(steps).all()):
        raise ValueError(
            "the model's logits must be finite numbers, got NaN or infinity: its weights are "
            f"damaged, or its activations overflow in {model.dtype}"
        )
