"""The tokenizer of a checkpoint, and the tokens that its configuration asks for."""

import logging
from typing import Any

from llava.checkpoint.added_tokens import read_added_tokens
from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.files import CheckpointFiles
from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_PATCH_TOKEN,
)
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.tokenizer import LlavaTokenizer

logger = logging.getLogger(__name__)

_MOST_SPARE_ROWS = 128
"""Rows that an embedding may have beyond its vocabulary: checkpoints are padded to 64."""


def read_tokenizer(files: CheckpointFiles, config: Any) -> LlavaTokenizer:
    """Return the tokenizer of a checkpoint with its added tokens.

    Args:
        files: the checkpoint, or its base.
        config: the model's configuration.

    Raises:
        CheckpointError: a file that is missing or damaged; the vocabulary of another model; added
            tokens that cannot be loaded.
    """
    path = files.need("tokenizer.model")
    pieces = LlavaTokenizer(path)
    spare = config.vocab_size - pieces.vocab_size
    added = read_added_tokens(files, pieces.piece, pieces.vocab_size)
    if not 0 <= spare < _MOST_SPARE_ROWS + len(added):
        raise CheckpointError(
            f"tokenizer.model of {files.name} has {pieces.vocab_size} pieces, config.json says "
            f"vocab_size {config.vocab_size}: the vocabulary of another model"
        )
    beyond = [one for one in added if one >= config.vocab_size]
    if beyond:
        raise CheckpointError(
            f"{files.name} adds token {added[beyond[0]].content!r:.80} with id {beyond[0]}, "
            f"config.json says vocab_size {config.vocab_size}"
        )
    if not added:
        return pieces
    special = [token for token in added.values() if token.special]
    return LlavaTokenizer(path, added_tokens_decoder=added, extra_special_tokens=special)


def add_image_tokens(files: CheckpointFiles, tokenizer: LlavaTokenizer, config: Any) -> None:
    """Add the tokens that the configuration requires to the tokenizer.

    ``<im_patch>`` is in no prompt, so its embedding may be missing; see `grow_embeddings`.

    Raises:
        CheckpointError: prompts need ``<im_start>`` and ``<im_end>``, and the checkpoint has no
            embeddings of them.
    """
    tokens = []
    if getattr(config, "mm_use_im_patch_token", True):
        tokens.append(DEFAULT_IMAGE_PATCH_TOKEN)
    around = getattr(config, "mm_use_im_start_end", False)
    if around:
        tokens += [DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN]
    tokenizer.add_tokens(tokens, special_tokens=True)
    if around and len(tokenizer) > config.vocab_size:
        raise CheckpointError(
            f"config.json of {files.name}: mm_use_im_start_end puts <im_start> and <im_end> into "
            f"prompts, but its {config.vocab_size} embeddings have none for them: they need "
            f"{len(tokenizer)}"
        )


def grow_embeddings(tokenizer: LlavaTokenizer, model: LlavaLlamaForCausalLM) -> None:
    """Give a model rows for tokens that its checkpoint has none for, with a warning."""
    if len(tokenizer) > model.model.embed_tokens.num_embeddings:
        logger.warning(
            "embeddings grown to %s rows for %s", len(tokenizer), DEFAULT_IMAGE_PATCH_TOKEN
        )
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
