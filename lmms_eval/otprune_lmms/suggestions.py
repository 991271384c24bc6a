"""What a mistyped name was probably meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'fastv'?"`` for the most similar known name, "" if none is similar.

    Upper and lower case count as the same; of equally similar names the first in alphabetical order
    is returned.
    """
    by_lower = {name.lower(): name for name in sorted(known, reverse=True)}
    near = get_close_matches(str(given).lower()[:100], sorted(by_lower), n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""
