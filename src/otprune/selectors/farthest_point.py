"""Farthest point: a greedy cover of the tokens by balls (Gonzalez 1985)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float

from otprune.checks import check_choice
from otprune.compiled import loops_for
from otprune.greedy.max_min import max_min_in_rounds
from otprune.kernels import in_range, reading_waits, unit_rows, working_dtype
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class FarthestPoint(Selector):
    """Start at the token nearest the mean, then always take the token farthest from all picks.

    Source: Gonzalez 1985, "Clustering to minimize the maximum intercluster distance": the largest
    distance of a token to its nearest pick is at most twice the best possible. Differs from
    DivPrune in the distance (a metric here) and in the start (central here, isolated there).
    Nested, O(nkd), memory O(nd). On a CPU in rounds (`otprune.greedy.max_min`).

    Attributes:
        space: "raw" for Euclidean distances between tokens, "unit" between unit-norm tokens.
        accumulate: "float32" or "float64".
    """

    space: Literal["raw", "unit"] = "raw"
    accumulate: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("space", self.space, ("raw", "unit"))
        check_choice("accumulate", self.accumulate, ("float32", "float64"))

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        tokens = tokens.to(working_dtype(self.accumulate))
        points = unit_rows(tokens) if self.space == "unit" else in_range(tokens)
        first = nearest_squares(points, points.mean(0, keepdim=True)).argmin(0, keepdim=True)
        if not reading_waits(points):
            return max_min_in_rounds(points, first, k, nearest_squares)
        order = torch.empty(k, dtype=torch.long, device=tokens.device)
        order[:1] = first
        nearest = torch.full_like(points[:, 0], float("inf"))
        for t in range(1, k):
            last = order[t - 1 : t]
            nearest = torch.minimum(nearest, nearest_squares(points, points[last]))
            nearest.index_fill_(0, last, -1.0)
            order[t : t + 1] = nearest.argmax(0, keepdim=True)
        return order


def nearest_squares(
    points: Float[torch.Tensor, "n d"], centres: Float[torch.Tensor, "m d"]
) -> Float[torch.Tensor, " n"]:
    """Return the squared distance of each point to its nearest centre.

    By differences: the expanded square loses the small distances that decide among near tokens.
    """
    loops = loops_for(points)
    if loops is not None:
        return loops.nearest_squares(points, centres)
    nearest = None
    for centre in centres:
        squares = torch.linalg.vector_norm(points - centre, dim=1).square_()
        nearest = squares if nearest is None else torch.minimum(nearest, squares)
    return torch.full_like(points[:, 0], float("inf")) if nearest is None else nearest
