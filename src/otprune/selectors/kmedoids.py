"""k-medoids: the k tokens that are the centres of clusters of all tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from otprune.checks import check_choice, check_count
from otprune.greedy.coverage import coverage_picks
from otprune.greedy.covers import Cover
from otprune.kernels import symmetric_product, unit_rows, working_dtype
from otprune.selector import Selector
from otprune.selectors.facility_location import FULL_UP_TO, picks_in_blocks
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens

_ROWS = 512
"""Tokens handled at once where there are more than all distances are held of."""


@dataclass(frozen=True, slots=True)
class KMedoids(Selector):
    """Voronoi iteration on 1 - cosine, started from the facility-location picks.

    Source: Park & Jun 2009, "A simple and fast algorithm for K-medoids clustering". Tokens are
    assigned to their nearest medoid, then each group's medoid becomes the member with the least sum
    of distances to the group; repeated until nothing changes. The cost never rises, so the result
    is at least as good as facility location's; it is not nested. O(n²k) a round, memory O(n²);
    above 4096 tokens O(nkd) a round, memory O(nd).

    Attributes:
        max_rounds: bound on the rounds.
        accumulate: "float32" or "float64".
    """

    max_rounds: int = 50
    accumulate: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_count("max_rounds", self.max_rounds)
        check_choice("accumulate", self.accumulate, ("float32", "float64"))

    @property
    def nested(self) -> bool:
        """No: the centres of fewer groups are not among those of more."""
        return False

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        units = unit_rows(tokens.to(working_dtype(self.accumulate)))
        if len(units) > FULL_UP_TO:
            medoids = picks_in_blocks(units, k)
            return self._settled(medoids, lambda now: _recentred_by_sums(units, now))
        cosine = symmetric_product(units, units)
        medoids = coverage_picks([Cover((1 + cosine) / 2, k)])[0]
        distance = 1 - cosine
        return self._settled(medoids, lambda now: _recentred(distance, now))

    def _settled(self, medoids: Tensor, recentred: Callable[[Tensor], Tensor]) -> PickOrder:
        for _ in range(self.max_rounds):
            moved = recentred(medoids)
            if torch.equal(moved, medoids):
                break
            medoids = moved
        return medoids


def _recentred(distance: Tensor, medoids: Tensor) -> Tensor:
    """Return the best medoid of each group, [k]; it changes only for a cheaper member."""
    k = len(medoids)
    group = _own_group(distance[:, medoids].argmin(1), medoids)
    member = torch.nn.functional.one_hot(group, k).to(distance.dtype)
    return _cheapest((distance @ member).gather(1, group[:, None])[:, 0], group, medoids)


def _recentred_by_sums(units: Tensor, medoids: Tensor) -> Tensor:
    """The same from unit-norm tokens [n d], with O(nd) memory.

    The sum of a token's distances to its group, the sum of 1 - cosine, is the group's size less the
    product with the sum of the group's vectors.
    """
    centres = units[medoids]
    nearest = torch.cat([(block @ centres.T).argmax(1) for block in units.split(_ROWS)])
    group = _own_group(nearest, medoids)
    sums = units.new_zeros(len(medoids), units.shape[1], dtype=torch.float64)
    for members, block in zip(group.split(_ROWS), units.split(_ROWS), strict=True):
        sums.index_add_(0, members, block.double())
    sizes = torch.bincount(group, minlength=len(medoids)).double()
    cost = [
        sizes[members] - torch.linalg.vecdot(block.double(), sums[members])
        for members, block in zip(group.split(_ROWS), units.split(_ROWS), strict=True)
    ]
    return _cheapest(torch.cat(cost), group, medoids)


def _own_group(group: Tensor, medoids: Tensor) -> Tensor:
    """Among duplicates a medoid may be nearest to another medoid; it is kept in its own group."""
    return group.index_copy(0, medoids, torch.arange(len(medoids), device=medoids.device))


def _cheapest(cost: Tensor, group: Tensor, medoids: Tensor) -> Tensor:
    n, k = len(cost), len(medoids)
    least = cost.new_full((k,), float("inf")).scatter_reduce(0, group, cost, "amin")
    position = torch.arange(n, device=group.device).masked_fill(cost > least[group], n)
    cheapest = torch.full_like(medoids, n).scatter_reduce(0, group, position, "amin")
    return torch.where(cost[medoids] <= least, medoids, cheapest)
