"""Alignment: a projected visual token should name what its patch shows.

LLaVA's first stage teaches the projector through captions. Here the scenes say what each patch
shows, so the projector is taught directly: the language model's output embedding, applied to a
projected token, should give the words for kind and colour of the object there, or for the ground,
and should favour the words for the sides of the image that the patch is on.
"""

from functools import cache

import numpy as np
import torch
from drawings import COLOURS, GROUNDS, KINDS
from scenes import Scene
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

SIDES = ("left", "right", "top", "bottom")
INSIDE, OUTSIDE = 0.75, 1.2
"""A patch shows an object if its centre lies within this share of the radius, and the ground beyond
the larger one; in between nothing is taught."""


@cache
def _centres(grid: int) -> np.ndarray:
    places = (np.arange(grid) + 0.5) / grid
    return np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)


def word_ids(tokenizer: PreTrainedTokenizerBase, space: str = "") -> dict[str, int]:
    """Return the piece of each kind, colour and ground, as it stands within a sentence.

    Args:
        tokenizer: the model's.
        space: what has to stand before a word; nothing, if the tokenizer itself begins a text with
            a space.

    Raises:
        ValueError: a word that is not one piece.
    """
    ids = {}
    for word in (*KINDS, *COLOURS, *GROUNDS):
        pieces = tokenizer(space + word, add_special_tokens=False)["input_ids"]
        if len(pieces) != 1:
            raise ValueError(f"every word must be one piece, {word!r} is {len(pieces)}")
        ids[word] = pieces[0]
    return ids


def patch_words(scene: Scene, visual: int, ids: dict[str, int]) -> np.ndarray:
    """Return the two words of each patch, [n 2]; -1 where nothing is taught."""
    centres = _centres(int(visual**0.5))
    words = np.full((visual, 2), ids[scene.ground], dtype=np.int64)
    half = 0.5 / visual**0.5
    for thing in scene.things:
        away = np.hypot(centres[:, 0] - thing.x, centres[:, 1] - thing.y)
        words[away < OUTSIDE * thing.radius + half] = -1
        inside = away < max(INSIDE * thing.radius, 1.01 * away.min())
        words[inside] = ids[thing.kind], ids[thing.colour]
    return words


def naming_loss(projected: Tensor, words: Tensor, embedding: Tensor) -> Tensor:
    """Return the cross-entropy of both words of each patch; objects and ground weigh the same.

    Args:
        projected: projected visual tokens, [b n d].
        words: from `patch_words`, [b n 2].
        embedding: the output embedding, [v d].
    """
    taught = words[..., 0] >= 0
    logits = F.rms_norm(projected[taught], projected.shape[-1:]) @ embedding.T
    chosen = words[taught]
    losses = -logits.log_softmax(-1).gather(1, chosen).mean(1)
    ground = chosen[:, 0] == chosen[:, 1]
    return (losses[ground].mean() + losses[~ground].mean()) / 2


def side_ids(tokenizer: PreTrainedTokenizerBase, space: str = "") -> tuple[int, int, int, int]:
    """Return the pieces of left, right, top and bottom; ``space`` as in `word_ids`.

    Raises:
        ValueError: a word that is not one piece.
    """
    found = [tokenizer(space + w, add_special_tokens=False)["input_ids"] for w in SIDES]
    if any(len(pieces) != 1 for pieces in found):
        raise ValueError(f"each of {', '.join(SIDES)} must be one piece, got {found}")
    left, right, top, bottom = (pieces[0] for pieces in found)
    return left, right, top, bottom


def placing_loss(projected: Tensor, sides: tuple[int, int, int, int], embedding: Tensor) -> Tensor:
    """Return the loss of left against right and top against bottom, read from each projected token.

    Where a patch is must be read from its token: once others are pruned, its number in the sequence
    does not say it.

    Args:
        projected: projected visual tokens, [b n d].
        sides: from `side_ids`.
        embedding: the output embedding, [v d].
    """
    left, right, top, bottom = sides
    axes = torch.stack([embedding[right] - embedding[left], embedding[bottom] - embedding[top]])
    logits = F.rms_norm(projected, projected.shape[-1:]) @ axes.T
    centres = torch.from_numpy(_centres(int(projected.shape[1] ** 0.5))).to(logits)
    return F.binary_cross_entropy_with_logits(logits, (centres > 0.5).to(logits).expand_as(logits))


def naming_accuracy(projected: Tensor, words: Tensor, embedding: Tensor) -> float:
    """Return on how many object patches the two likeliest words are the right ones."""
    taught = (words[..., 0] >= 0) & (words[..., 0] != words[..., 1])
    logits = F.rms_norm(projected[taught], projected.shape[-1:]) @ embedding.T
    best = logits.topk(2).indices.sort(-1).values
    return float((best == words[taught].sort(-1).values).all(-1).float().mean())
