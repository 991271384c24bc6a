"""Which of an image's placeholders stay in a prompt."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from otprune import resolve_budget


def unit_sizes(n: int, unit: int | None) -> list[int]:
    """Return the tokens of each unit that has a budget of its own.

    Args:
        n: tokens of the image.
        unit: tokens of a unit; None where the image is one.

    Raises:
        ValueError: ``n`` is no multiple of ``unit``.
    """
    if unit is None:
        return [n]
    if n % unit:
        raise ValueError(f"an image's tokens must be a multiple of {unit}, got {n}")
    return [unit] * (n // unit)


def shortened(
    ids: Sequence[int], embedded: Sequence[bool], keep_ratio: float, unit: int | None
) -> list[int]:
    """Return the ids that stand for an image with as many placeholders as tokens are kept.

    Of each unit the first placeholders stay; they are all alike. Ids between them are text, and
    stay. O(ids).

    Args:
        ids: what stands for the unpruned image.
        embedded: which of them are placeholders.
        keep_ratio: share of tokens to keep.
        unit: see `unit_sizes`.
    """
    sizes = unit_sizes(sum(embedded), unit)
    stays = [
        place < resolve_budget(size, keep_ratio=keep_ratio)
        for size in sizes
        for place in range(size)
    ]
    placeholders = iter(stays)
    return [
        one
        for one, is_placeholder in zip(ids, embedded, strict=True)
        if not is_placeholder or next(placeholders)
    ]


def spans(sizes: Sequence[int]) -> list[slice]:
    """Return where units of these sizes are in an image's tokens."""
    return [slice(*ends) for ends in pairwise(accumulate(sizes, initial=0))]
