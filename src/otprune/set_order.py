"""The order in which CPython iterates over a set of small integers.

The released code of OTPrune passes the kept tokens to the language model in the order of
``list(set(picks))``. That order is neither the picking order nor ascending, but it is a function of
the picks: integers hash to themselves, and the rest follows from CPython's open-addressing table.
It is reproduced here, so that the result does not depend on the interpreter.
"""

_SMALLEST_TABLE = 8
_LINEAR_PROBES = 9
_PERTURB_SHIFT = 5
_SLOW_GROWTH_ABOVE = 50_000


def set_order(items: list[int]) -> list[int]:
    """Return distinct non-negative integers in the order of CPython's ``list(set(items))``.

    Reproduces insertion one by one (CPython 3.7 to 3.13, ``Objects/setobject.c``): nine linear
    probes, then perturbed jumps; the table grows fourfold once it is three fifths full.

    Raises:
        ValueError: an item negative or given twice.
    """
    if any(item < 0 for item in items) or len(set(items)) != len(items):
        raise ValueError(f"items must be distinct integers >= 0, got {items!r}")
    table: list[int | None] = [None] * _SMALLEST_TABLE
    for used, item in enumerate(items, start=1):
        _insert(table, item)
        if used * 5 >= (len(table) - 1) * 3:
            table = _grown(table, used * 2 if used > _SLOW_GROWTH_ABOVE else used * 4)
    return [item for item in table if item is not None]


def _insert(table: list[int | None], item: int) -> None:
    mask = len(table) - 1
    perturb, slot = item, item & mask
    while True:
        last = slot + _LINEAR_PROBES if slot + _LINEAR_PROBES <= mask else slot
        for probe in range(slot, last + 1):
            if table[probe] is None:
                table[probe] = item
                return
        perturb >>= _PERTURB_SHIFT
        slot = (slot * 5 + 1 + perturb) & mask


def _grown(table: list[int | None], least: int) -> list[int | None]:
    size = _SMALLEST_TABLE
    while size <= least:
        size *= 2
    larger: list[int | None] = [None] * size
    for item in table:
        if item is not None:
            _insert(larger, item)
    return larger
