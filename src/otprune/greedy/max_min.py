"""Max-min selection of many tokens: each pick is the token farthest from its nearest pick.

Distances to the nearest pick only fall as tokens are picked, so the rounds of `active_set` serve
here too: picks are made among the tokens that are farthest now, as long as the best of them is
farther than all others were when the round began; then all tokens get their distances to the
round's picks in one product. One pass over the tokens for each round, not for each pick.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from otprune.types import PickOrder

_ACTIVE = 256
_SHARE = 48
_ROUND = 64
_PICKED = float("-inf")


def max_min_in_rounds(
    points: Float[Tensor, "n d"],
    first: Tensor,
    k: int,
    to_nearest: Callable[[Tensor, Tensor], Tensor],
) -> PickOrder:
    """Return k picks, the first given; ties go to the lower index. Memory O(n) beside the points.

    Args:
        points: [n d].
        first: the first pick, int64 [1].
        k: how many.
        to_nearest: returns the distance of each point [m d] to the nearest of some centres [c d].
    """
    n = len(points)
    size = min(n, max(_ACTIVE, n // _SHARE))
    nearest = to_nearest(points, points[first])
    nearest[first] = _PICKED
    order = [first]
    count = 1
    while count < k:
        values, positions = nearest.topk(min(n, size + 1))
        active, best = positions[:size], nearest.argmax(0, keepdim=True)
        bound = float(values[size]) if size < n else _PICKED
        if not bool((active == best).any()):
            # Ties at the top: the lowest position must be among the candidates.
            active[-1:] = best
        active = active.sort().values
        picks = active[_round(points[active], nearest[active], bound, k - count, to_nearest)]
        nearest = torch.minimum(nearest, to_nearest(points, points[picks]))
        nearest[picks] = _PICKED
        order.append(picks)
        count += len(picks)
    return torch.cat(order)


def _round(
    points: Tensor,
    nearest: Tensor,
    bound: float,
    most: int,
    to_nearest: Callable[[Tensor, Tensor], Tensor],
) -> list[int]:
    """Return which of the active points are picked: the farthest, then those above the bound."""
    picks: list[int] = []
    while len(picks) < min(most, _ROUND, len(points)):
        j = int(nearest.argmax())
        if picks and float(nearest[j]) <= bound:
            break
        picks.append(j)
        nearest = torch.minimum(nearest, to_nearest(points, points[j : j + 1]))
        nearest[picks] = _PICKED
    return picks
