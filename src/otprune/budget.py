"""How many tokens to keep: a share of them or a count."""

import operator
from typing import SupportsIndex


def resolve_budget(n: int, keep_ratio: float | None = None, k: SupportsIndex | None = None) -> int:
    """Return the number of tokens to keep out of ``n``.

    ``keep_ratio`` is the share *kept*: ``int(round(keep_ratio * n))`` (Python rounds half to even)
    as in the released code of OTPrune and DivPrune, but at least 1: 576 tokens at 0.098 keep 56.
    ``k`` is the count itself. Exactly one of the two is given.

    Raises:
        ValueError: both or none given, ``keep_ratio`` outside (0, 1] or no number, ``k`` no integer
            or outside 1..n, ``n`` below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1 token, got {n}")
    if (keep_ratio is None) == (k is None):
        given = "neither" if k is None else f"keep_ratio={keep_ratio!r} and k={k!r}"
        raise ValueError(f"exactly one of keep_ratio and k must be given, got {given}")
    if k is not None:
        return _check_count(k, n)
    return max(1, round(_check_ratio(keep_ratio) * n))


def _check_count(k: object, n: int) -> int:
    try:
        count = operator.index(k)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or isinstance(k, bool):
        raise ValueError(f"k must be an integer, got {k!r}")
    if not 1 <= count <= n:
        raise ValueError(f"k must be in 1..n = 1..{n}, got {count}")
    return count


def _check_ratio(keep_ratio: object) -> float:
    if isinstance(keep_ratio, int | float) and not isinstance(keep_ratio, bool):
        ratio = float(keep_ratio)
        if 0 < ratio <= 1:
            return ratio
    raise ValueError(f"keep_ratio must be in (0, 1], got {keep_ratio!r}")
