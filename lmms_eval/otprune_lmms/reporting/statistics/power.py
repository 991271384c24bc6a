"""What a sample can decide: the smallest paired difference that a test would find."""

import math
from functools import cache

from scipy.stats import norm

ALPHA = 0.05
POWER = 0.8


def detectable_difference(
    discordance: float, documents: int, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """Return the smallest difference of two accuracies that McNemar's test finds.

    With discordance q and difference d a document's difference has variance q under "equal" and
    q - d^2 otherwise, so d solves d sqrt(n) = z(1 - alpha/2) sqrt(q) + z(power) sqrt(q - d^2), a
    quadratic equation (Connor 1987 for the number of documents, see `documents_needed`).

    Args:
        discordance: share of the documents on which the two differ in being right, in [0, 1].
        documents: independent ones.
        alpha: two-sided level of one comparison; Holm's correction asks for more.
        power: probability of finding it.

    Returns:
        A share, in the unit of ``discordance``; NaN where not even a difference as large as the
        discordance would be found, which includes a discordance of 0.

    Raises:
        ValueError: a share outside [0, 1], alpha or power outside (0, 1), documents below 1.
    """
    if not 0 <= discordance <= 1:
        raise ValueError(f"discordance must lie in [0, 1], got {discordance}")
    if documents < 1:
        raise ValueError(f"documents must be at least 1, got {documents}")
    at_null, at_other = _quantiles(alpha, power)
    first = at_null * math.sqrt(discordance * documents)
    width = documents + at_other**2
    inner = first**2 - width * (at_null**2 - at_other**2) * discordance
    difference = (first + math.sqrt(max(inner, 0.0))) / width
    return difference if 0 < difference <= discordance else float("nan")


def documents_needed(
    discordance: float, difference: float, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """Return how many independent documents McNemar's test needs for a difference (Connor 1987).

    Args:
        discordance: share of the documents on which the two differ in being right.
        difference: of the two accuracies, above 0 and at most ``discordance``.
        alpha: two-sided level of one comparison.
        power: probability of finding it.

    Raises:
        ValueError: a difference outside (0, discordance], alpha or power outside (0, 1).
    """
    if not 0 < difference <= discordance <= 1:
        raise ValueError(
            f"difference must lie in (0, discordance], got {difference} at {discordance}"
        )
    at_null, at_other = _quantiles(alpha, power)
    spread = math.sqrt(discordance - difference**2)
    return ((at_null * math.sqrt(discordance) + at_other * spread) / difference) ** 2


def detectable_from_error(error: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the smallest difference found when the difference's standard error is known.

    For clustered documents and for scores that are not 0 or 1, where ``error`` comes from the
    bootstrap: (z(1 - alpha/2) + z(power)) x error, 2.80 x error by default.

    Args:
        error: standard error of the paired difference.
        alpha: two-sided level of one comparison.
        power: probability of finding it.

    Raises:
        ValueError: a negative error, alpha or power outside (0, 1).
    """
    if error < 0:
        raise ValueError(f"error must not be negative, got {error}")
    return sum(_quantiles(alpha, power)) * error


@cache
def _quantiles(alpha: float, power: float) -> tuple[float, float]:
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie in (0, 1), got {value}")
    return float(norm.ppf(1 - alpha / 2)), float(norm.ppf(power))
