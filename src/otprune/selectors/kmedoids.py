"""k-medoids: the k tokens that are the centres of clusters of all tokens."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from otprune.checks import check_choice, check_count
from otprune.kernels import symmetric_product, unit_rows, working_dtype
from otprune.selector import Selector
from otprune.selectors.facility_location import facility_location_picks
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class KMedoids(Selector):
    """Voronoi iteration on 1 - cosine, started from the facility-location picks.

    Source: Park & Jun 2009, "A simple and fast algorithm for K-medoids clustering". Tokens are
    assigned to their nearest medoid, then each group's medoid becomes the member with the least sum
    of distances to the group; repeated until nothing changes. The cost never rises, so the result
    is at least as good as facility location's; it is not nested. O(n²k) a round, memory O(n²).

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
        cosine = symmetric_product(units, units)
        medoids = facility_location_picks((1 + cosine) / 2, k)
        distance = 1 - cosine
        for _ in range(self.max_rounds):
            moved = _recentred(distance, medoids)
            if torch.equal(moved, medoids):
                break
            medoids = moved
        return medoids


def _recentred(distance: Tensor, medoids: Tensor) -> Tensor:
    """Return the best medoid of each group, [k]; it changes only for a cheaper member."""
    n, k = len(distance), len(medoids)
    group = distance[:, medoids].argmin(1)
    # Among duplicates a medoid may be nearest to another medoid; it is kept in its own group.
    group[medoids] = torch.arange(k, device=medoids.device)
    member = torch.nn.functional.one_hot(group, k).to(distance.dtype)
    cost = (distance @ member).gather(1, group[:, None])[:, 0]
    least = cost.new_full((k,), float("inf")).scatter_reduce(0, group, cost, "amin")
    position = torch.arange(n, device=group.device).masked_fill(cost > least[group], n)
    cheapest = torch.full_like(medoids, n).scatter_reduce(0, group, position, "amin")
    return torch.where(cost[medoids] <= least, medoids, cheapest)
