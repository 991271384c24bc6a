"""Attention masks of layers to which only some positions of the prompts are left."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


def dropped_mask(
    given: Tensor, source: Int64[Tensor, "b u"], valid: Bool[Tensor, "b u"] | None
) -> Tensor:
    """Return a mask [b 1 t t] of whole prompts for the positions that are left, [b 1 u u].

    Whoever saw whom before does so still. Bool masks stay bool (true is seen), others have the
    least number of their dtype where nothing is seen.

    Args:
        given: the mask.
        source: which positions are left, any at padding.
        valid: which of them are no padding; None if all are.
    """
    source = source.to(given.device)
    whole = given.expand(len(source), -1, -1, -1)
    rows = whole.gather(2, source[:, None, :, None].expand(-1, 1, -1, whole.shape[3]))
    left = rows.gather(3, source[:, None, None, :].expand(-1, 1, rows.shape[2], -1))
    if valid is None:
        return left
    hidden = ~valid.to(given.device)[:, None, None, :]
    least = False if left.dtype == torch.bool else torch.finfo(left.dtype).min
    return left.masked_fill(hidden, least)


def window_mask(
    queries: Int64[Tensor, "b n"], keys: Int64[Tensor, "b s"], window: int
) -> Bool[Tensor, "b 1 n s"]:
    """Return which positions are seen: not later ones, and those less than a window away."""
    distance = queries[:, None, :, None] - keys[:, None, None, :]
    return (distance >= 0) & (distance < window)


def visible(mask: Tensor) -> Bool[Tensor, "..."]:
    """Return what a mask of either form shows."""
    return mask if mask.dtype == torch.bool else mask == 0
