"""Schedules: how many visual tokens are kept from which layer on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """Tokens are dropped at the input of a layer.

    Attributes:
        layer: 0 means before the language model.
        amount: what is kept: a share of the image's tokens before any pruning (a float), or a
            number of tokens (an int).
    """

    layer: int
    amount: float | int

    def count(self, n: int) -> int:
        """Return how many of ``n`` tokens are kept; a share is rounded down to a whole number."""
        return self.amount if isinstance(self.amount, int) else int(self.amount * n)


def parse_schedule(text: str, least: int = 0) -> tuple[Point, ...]:
    """Return the points of a schedule like ``7:0.875/9:0.625/12:0.125`` or ``2:64``.

    Numbers with a decimal point are shares of the image's tokens, others are counts.

    Args:
        text: the schedule.
        least: lowest layer allowed; 1 for a method that prunes inside the language model only.

    Raises:
        ValueError: not of that form; layers not ascending; a share outside [0, 1]; amounts of one
            kind that grow; a layer below ``least``.
    """
    points = []
    for part in str(text).split("/"):
        layer, colon, amount = part.partition(":")
        try:
            number = float(amount) if "." in amount else int(amount)
            point = Point(int(layer), number)
        except ValueError:
            point = Point(-1, -1)
        share = isinstance(point.amount, float)
        if not colon or point.layer < 0 or not 0 <= point.amount <= (1 if share else point.amount):
            raise ValueError(
                "schedule must be layer:share or layer:count, joined by slashes, as in "
                f"7:0.875/9:0.625/12:0.125; got {text!r}"
            )
        points.append(point)
    for before, after in zip(points, points[1:], strict=False):
        same = type(before.amount) is type(after.amount)
        if after.layer <= before.layer or (same and after.amount > before.amount):
            raise ValueError(f"schedule must have ascending layers and fewer tokens, got {text!r}")
    if points[0].layer < least:
        raise ValueError(f"schedule must have layers >= {least}, got {text!r}")
    return tuple(points)


def tokens_by_layer(
    counts: dict[int, int], n: int, layers: int, appended: Callable[[int], int] | None = None
) -> list[int]:
    """Return the visual tokens of an image that enter each layer.

    Args:
        counts: by layer the tokens kept from there on, without those that a method appends.
        n: tokens before any pruning.
        layers: number of layers of the language model.
        appended: how many merged tokens replace so many dropped ones; None for none.
    """
    remaining, found = n, []
    for layer in range(layers):
        if layer in counts and counts[layer] < remaining:
            dropped = remaining - counts[layer]
            remaining = counts[layer] + (appended(dropped) if appended and layer else 0)
        found.append(remaining)
    return found


def solve(
    points: Sequence[Point],
    n: int,
    layers: int,
    target: float,
    cost: Callable[[int], float],
    appended: Callable[[int], int] | None = None,
) -> dict[int, int]:
    """Return how many tokens to keep at each point so that all layers together cost ``target``.

    All amounts are scaled by the largest factor, up to n tokens each, at which the total does not
    exceed the target. The rest of the target is then spent token by token, always at the last point
    that can have one more, where a token is cheapest. In the end no point can have a further token
    within the target.

    Args:
        points: the shape of the schedule; at least one. An amount of 0 counts as one token.
        n: tokens of the image.
        layers: number of layers of the language model.
        target: total cost; the cost of n tokens in every layer, or more, keeps everything.
        cost: cost of a layer, as an increasing function of the visual tokens that enter it.
        appended: see `tokens_by_layer`.

    Raises:
        ValueError: even a single token at every point costs more.
    """

    def total(counts: dict[int, int]) -> float:
        return sum(map(cost, tokens_by_layer(counts, n, layers, appended)))

    def scaled(factor: float) -> dict[int, int]:
        return {p.layer: min(n, max(1, int(factor * max(1, p.count(n))))) for p in points}

    if total(scaled(0)) > target:
        least = sum(tokens_by_layer(scaled(0), n, layers, appended)) / layers
        raise ValueError(
            f"the budget is out of reach: with layers {', '.join(str(p.layer) for p in points)} of "
            f"{layers} pruned to a single token, {least:.1f} of {n} tokens are left on average"
        )
    low, high = 0.0, float(n)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if total(scaled(middle)) <= target else (low, middle)
    counts = scaled(low)
    while True:
        affordable = (c for c in _with_one_more(counts, n) if total(c) <= target)
        more = next(affordable, None)
        if more is None:
            return counts
        counts = more


def _with_one_more(counts: dict[int, int], n: int) -> Iterator[dict[int, int]]:
    """Yield the counts with one more token at one point, the last possible point first."""
    layers = list(counts)
    for before, layer in zip(reversed([None, *layers[:-1]]), reversed(layers), strict=True):
        if counts[layer] < (n if before is None else counts[before]):
            yield {**counts, layer: counts[layer] + 1}
