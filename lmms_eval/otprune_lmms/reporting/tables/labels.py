"""What the label of a row says, part by part."""

import re

MATCHES = ("average", "flops")
"""What a budget is about where the label says so; see `cells.Cell`."""

_HASH = re.compile(r"-[0-9a-f]{8}$")
"""Ends labels that hold letters unfit for a file name, or are too long."""


def parts_of(
    label: str, method: str, keep_ratio: float | None, k: float | None
) -> tuple[str | None, list[str]] | None:
    """Return what the budget of a label is about, and the parts after it.

    As `Cell.label` writes them: method, budget, what it is about, and what else differs from the
    defaults. The first is None where it is the usual. A hash at the end is left out; it differs
    between budgets.

    Args:
        label: of a row.
        method: its method.
        keep_ratio: its budget; None or NaN for none.
        k: likewise.

    Returns:
        None for a label of another form.
    """
    budget = ""
    if keep_ratio is not None and keep_ratio == keep_ratio:
        budget = r"-[0-9.]+(?:e-?\d+)?"
    elif k is not None and k == k:
        budget = r"-k\d+"
    found = re.fullmatch(rf"{re.escape(method)}{budget}((?:-.+)?)", label)
    if found is None:
        return None
    # A dash before a digit belongs to a number such as 1e-05.
    after = _HASH.sub("", found[1])
    parts = [part for part in re.split(r"-(?=[A-Za-z_])", after) if part]
    if budget and parts and parts[0] in MATCHES:
        return parts[0], parts[1:]
    return None, parts


def hashed(label: str) -> bool:
    """Return whether a label ends in a hash, since it could not say everything."""
    return _HASH.search(label) is not None
