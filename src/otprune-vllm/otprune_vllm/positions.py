"""Positions of several axes (m-rope) of prompts whose images have fewer tokens than patches.

A kept token has the position of its patch, and text goes on behind the whole image, as if nothing
had been dropped. Which patches are kept is known only when an image has been encoded. So a prompt
starts with all tokens of an image at the image's first place, on every axis; on the first axis,
time, they stay there; on the others they move by their row and column, which the rows of the
encoder's output carry in four more channels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

CHANNELS = 4
"""Channels that carry a place."""

_BASE = 256
"""Row and column are written in two digits: integers below 257 are exact in bfloat16."""


class ImageSpan(NamedTuple):
    """An image in a prompt.

    Attributes:
        start: its first placeholder.
        length: of its placeholders.
        rows: of its grid of tokens before pruning.
        columns: likewise.
    """

    start: int
    length: int
    rows: int
    columns: int


def with_places(
    tokens: Float[Tensor, "k d"], kept: Int64[Tensor, " k"], columns: int
) -> Float[Tensor, "k e"]:
    """Return tokens with the channels that carry their places.

    Args:
        tokens: kept tokens.
        kept: their numbers in the image, row by row.
        columns: of the image's grid.
    """
    row, column = kept // columns, kept % columns
    digits = [row // _BASE, row % _BASE, column // _BASE, column % _BASE]
    return torch.cat([tokens, torch.stack(digits, 1).to(tokens)], 1)


def without_places(
    tokens: Float[Tensor, "k e"],
) -> tuple[Float[Tensor, "k d"], Int64[Tensor, "2 k"]]:
    """Return what `with_places` was given: tokens, and their rows and columns."""
    digits = tokens[:, -CHANNELS:].long()
    return tokens[:, :-CHANNELS], torch.stack(
        [digits[:, 0] * _BASE + digits[:, 1], digits[:, 2] * _BASE + digits[:, 3]]
    )


def first_positions(length: int, images: Sequence[ImageSpan]) -> tuple[Int64[Tensor, "3 t"], int]:
    """Return the positions of a prompt before its images are encoded, and what to add later.

    Args:
        length: of the pruned prompt.
        images: those in the prompt, in order.

    Returns:
        Positions, and the difference between the next token's position and its number.
    """
    positions = torch.zeros(3, length, dtype=torch.int64)
    at = done = 0
    for start, tokens, rows, columns in images:
        text = start - done
        positions[:, done:start] = torch.arange(at, at + text)
        at, done = at + text, start + tokens
        positions[:, start:done] = at
        at += max(rows, columns)
    text = length - done
    positions[:, done:] = torch.arange(at, at + text)
    return positions, at + text - length


def moved(
    positions: Int64[Tensor, "3 t"],
    is_image: Tensor,
    places: Sequence[Int64[Tensor, "2 k"]],
    computed: int,
) -> Int64[Tensor, "3 t"]:
    """Return positions with image tokens moved to the patches that they come from.

    May be called again for the same tokens: positions on the first axis never change, and the
    others follow from them.

    Args:
        positions: of the whole prompt.
        is_image: which of its ids are placeholders, [t].
        places: rows and columns of the tokens of a chunk of the prompt, image by image.
        computed: where the chunk begins.
    """
    positions = positions.clone()
    if not places:
        return positions
    moves = torch.cat(list(places), 1).to(positions)
    columns = computed + is_image[computed:].nonzero()[:, 0].to(positions.device)
    columns = columns[: moves.shape[1]]
    positions[1:, columns] = positions[0, columns] + moves
    return positions
