"""The helpers that LLaVA's users import from this module: prompts, model names, images."""

import base64
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_TOKEN,
    IMAGE_TOKEN_INDEX,
)
from llava.images.layouts import (
    divide_to_patches,
    expand2square,
    get_anyres_image_grid_shape,
    process_anyres_image,
    process_images,
    resize_and_pad_image,
    select_best_resolution,
)
from llava.images.reading import open_image

__all__ = [
    "KeywordsStoppingCriteria",
    "divide_to_patches",
    "expand2square",
    "get_anyres_image_grid_shape",
    "get_model_name_from_path",
    "load_image_from_base64",
    "mark_images",
    "process_anyres_image",
    "process_images",
    "resize_and_pad_image",
    "select_best_resolution",
    "tokenizer_image_token",
]


def tokenizer_image_token(
    prompt: str,
    tokenizer: PreTrainedTokenizerBase,
    image_token_index: int = IMAGE_TOKEN_INDEX,
    return_tensors: str | None = None,
) -> list[int] | Tensor:
    """Return the ids of a prompt with one ``image_token_index`` for every ``<image>`` in it.

    The texts between images are tokenised separately, each with the tokenizer's dummy prefix; only
    the first keeps its ``<s>``.

    Raises:
        ValueError: ``return_tensors`` other than "pt" or None.
    """
    if return_tensors not in (None, "pt"):
        raise ValueError(f"return_tensors must be 'pt' or None, got {return_tensors!r}")
    ids: list[int] = []
    for number, chunk in enumerate(prompt.split(DEFAULT_IMAGE_TOKEN)):
        part = tokenizer(chunk).input_ids
        if number == 0:
            ids += part
            continue
        skip = 1 if part and part[0] == tokenizer.bos_token_id else 0
        ids += [image_token_index, *part[skip:]]
    return torch.tensor(ids, dtype=torch.long) if return_tensors == "pt" else ids


def mark_images(text: str, config: Any) -> str:
    """Return a prompt with the tokens around each ``<image>`` that its checkpoint was trained with.

    With ``mm_use_im_start_end`` these are ``<im_start>`` and ``<im_end>``, else none. An image that
    has them already gets no others.
    """
    if not getattr(config, "mm_use_im_start_end", False):
        return text
    marked = DEFAULT_IM_START_TOKEN + DEFAULT_IMAGE_TOKEN + DEFAULT_IM_END_TOKEN
    return text.replace(marked, DEFAULT_IMAGE_TOKEN).replace(DEFAULT_IMAGE_TOKEN, marked)


def get_model_name_from_path(model_path: str) -> str:
    """Return the last part of a path; for a training checkpoint also the folder around it."""
    parts = model_path.strip("/").split("/")
    if parts[-1].startswith("checkpoint-") and len(parts) > 1:
        return f"{parts[-2]}_{parts[-1]}"
    return parts[-1]


def load_image_from_base64(image: str | bytes) -> Image.Image:
    """Return a base64-encoded image as RGB."""
    return open_image(base64.b64decode(image))


class KeywordsStoppingCriteria(StoppingCriteria):
    """Stop each row once its text contains one of the keywords.

    Args:
        keywords: the words to stop at.
        tokenizer: decodes the new tokens.
        input_ids: not used; the original takes it. `generate` passes new tokens only, so there is
            no prompt to skip.
    """

    def __init__(
        self,
        keywords: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        input_ids: Tensor | None = None,
    ) -> None:
        self.keywords = list(keywords)
        self.tokenizer = tokenizer

    # The original's argument names; and a Tensor where transformers annotates a BoolTensor.
    def __call__(  # type: ignore[override]
        self, output_ids: Tensor, scores: Tensor, **kwargs: object
    ) -> Tensor:
        """Return for each row whether it may end, [b]."""
        texts = self.tokenizer.batch_decode(output_ids, skip_special_tokens=True)
        done = [any(word in text for word in self.keywords) for text in texts]
        return torch.tensor(done, device=output_ids.device)
