"""How many tokens to keep, a share of them or a count; and the only check of their ranges."""

import operator
from numbers import Real
from typing import SupportsIndex


def check_keep_ratio(value: object, name: str = "keep_ratio") -> float:
    """Return a share of tokens to keep as a float.

    Raises:
        ValueError: ``value`` is no number in (0, 1]; the message calls it ``name``.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        ratio = float(value)
        if 0 < ratio <= 1:
            return ratio
    raise ValueError(f"{name} must be in (0, 1], got {value!r}")


def check_k(value: object, n: int | None = None, name: str = "k") -> int:
    """Return a count of tokens to keep as an int.

    Args:
        value: any integer, NumPy's included.
        n: tokens that there are; None if that is not known yet.
        name: what the message calls the value.

    Raises:
        ValueError: ``value`` is no integer, below 1, or above ``n``.
    """
    if n is None:
        return _integer(value, name, least=1)
    count = _as_integer(value)
    if count is None:
        raise ValueError(f"{name} must be an integer, got {value!r}")
    if not 1 <= count <= n:
        raise ValueError(f"{name} must be in 1..n = 1..{n}, got {count}")
    return count


def check_layer(value: object, name: str = "layer") -> int:
    """Return the number of a layer as an int; 0 stands for before the language model.

    Raises:
        ValueError: ``value`` is no integer >= 0; the message calls it ``name``.
    """
    return _integer(value, name, least=0)


def check_budget(keep_ratio: object, k: object) -> tuple[float | None, int | None]:
    """Return ``(keep_ratio, k)``, of which exactly one is given and the other is None.

    Raises:
        ValueError: both or none given, or the one that is given is out of its range.
    """
    _check_exactly_one(keep_ratio, k)
    if k is not None:
        return None, check_k(k)
    return check_keep_ratio(keep_ratio), None


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
    _check_exactly_one(keep_ratio, k)
    if k is not None:
        return check_k(k, n)
    return max(1, round(check_keep_ratio(keep_ratio) * n))


def _check_exactly_one(keep_ratio: object, k: object) -> None:
    if (keep_ratio is None) == (k is None):
        given = "neither" if k is None else f"keep_ratio={keep_ratio!r} and k={k!r}"
        raise ValueError(f"exactly one of keep_ratio and k must be given, got {given}")


def _integer(value: object, name: str, least: int) -> int:
    count = _as_integer(value)
    if count is None or count < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    return count


def _as_integer(value: object) -> int | None:
    """Return an integer of any type as Python's; None for a bool and for anything else."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:
        # A tensor has `__index__`, but only one that holds a single integer can be converted.
        return None
