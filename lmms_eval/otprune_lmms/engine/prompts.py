"""From a task's context to token ids."""

import torch
from torch import Tensor

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import conv_templates
from llava.mm_utils import tokenizer_image_token
from llava.tokenizer import LlavaTokenizer
from otprune_lmms.engine.requests import DocumentError, Request


def check_template(name: str) -> None:
    """Raise ``ValueError`` unless there is a conversation template of this name."""
    if name not in conv_templates:
        known = ", ".join(conv_templates)
        raise ValueError(f"conv_template must be one of {known}; got {name!r}")


def prompt_of(request: Request, images: int, template: str, answer: str | None = None) -> str:
    """Return the prompt of a request with so many images.

    As lmms-eval's own wrapper builds it: a context that places no ``<image>`` gets one for each
    image, in a line of its own in front.

    Args:
        request: what is asked.
        images: number of its images.
        template: name of the conversation template.
        answer: the assistant's turn; None leaves it open.

    Raises:
        DocumentError: another number of ``<image>`` in the context than images.
    """
    question = request.context
    placed = question.count(DEFAULT_IMAGE_TOKEN)
    if placed and placed != images:
        reason = f"the context places {placed} images, the document has {images}"
        raise DocumentError(request.failure(reason))
    if images and not placed:
        question = " ".join([DEFAULT_IMAGE_TOKEN] * images) + "\n" + question
    conversation = conv_templates[template].copy()
    conversation.append_message(conversation.roles[0], question)
    conversation.append_message(conversation.roles[1], answer)
    return conversation.get_prompt()


def token_ids(prompt: str, tokenizer: LlavaTokenizer) -> Tensor:
    """Return the ids of a prompt, [t], with `IMAGE_TOKEN_INDEX` for each ``<image>``."""
    return torch.tensor(tokenizer_image_token(prompt, tokenizer), dtype=torch.long)


def padded(rows: list[Tensor], padding: int) -> tuple[Tensor, Tensor]:
    """Return ids [b t] and mask [b t] of rows, padded on the left."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), padding, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, longest - len(row) :] = row
        mask[number, longest - len(row) :] = True
    return ids, mask
