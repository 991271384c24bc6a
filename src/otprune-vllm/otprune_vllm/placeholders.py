"""Which of an image's placeholders stay in a prompt."""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from otprune import resolve_budget
from otprune.merger import Merger
from otprune.serving import ServedPruning


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


def square(n: int) -> tuple[int, int]:
    """Return rows and columns of a square of ``n`` tokens.

    Raises:
        ValueError: there is none.
    """
    side = math.isqrt(n)
    if side * side != n:
        raise ValueError(f"an image's tokens must be a square where its shape is unknown, got {n}")
    return side, side


def counts_of(
    sizes: Sequence[int], pruning: ServedPruning, shape: tuple[int, int] | None
) -> list[int]:
    """Return how many tokens enter the language model for each unit of an image.

    Args:
        sizes: tokens of each unit.
        pruning: of the image.
        shape: rows and columns of a unit; None: a square.
    """
    budgets = [resolve_budget(size, keep_ratio=pruning.keep_ratio) for size in sizes]
    method = pruning.instance()
    if not isinstance(method, Merger):
        return budgets
    made = [method.count(k, shape or square(n)) for k, n in zip(budgets, sizes, strict=True)]
    return [count for count in made if count is not None]


def shortened(
    ids: Sequence[int], embedded: Sequence[bool], sizes: Sequence[int], counts: Sequence[int]
) -> list[int]:
    """Return the ids that stand for an image with as many placeholders as tokens are kept.

    Of each unit the first placeholders stay; they are all alike. Ids between them are text, and
    stay. O(ids).

    Args:
        ids: what stands for the unpruned image.
        embedded: which of them are placeholders.
        sizes: placeholders of each unit, see `unit_sizes`.
        counts: how many stay.
    """
    stays = [
        place < count for size, count in zip(sizes, counts, strict=True) for place in range(size)
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
