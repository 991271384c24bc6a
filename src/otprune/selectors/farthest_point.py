"""Farthest point: a greedy cover of the tokens by balls (Gonzalez 1985)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from otprune.checks import check_choice
from otprune.compiled import loops_for
from otprune.greedy.max_min import max_min_in_rounds
from otprune.greedy.max_min_device import max_min_device
from otprune.greedy.padded_kernels import together_at_once
from otprune.greedy.programs import behind, go_together, in_parts, on_device, padded
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
    Nested, O(nkd), memory O(nd). On a CPU in rounds (`otprune.greedy.max_min`). On a GPU, float32
    tokens up to 4096 an image have all their distances computed at once, O(n²d) and O(n²).

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

    def _rank_images(
        self, tokens: list[Tensor], k: list[int], signals: list[Signals]
    ) -> list[Tensor]:
        if self.accumulate != "float32" or not go_together(tokens, torch.float32):
            return super(FarthestPoint, self)._rank_images(tokens, k, signals)
        points = [self._points(image) for image in tokens]
        found = []
        for part in in_parts(len(tokens), together_at_once(tokens, torch.float64)):
            found += farthest_together(points[part], k[part])
        return found

    def _points(self, tokens: Tensor) -> Tensor:
        tokens = tokens.to(working_dtype(self.accumulate))
        return unit_rows(tokens) if self.space == "unit" else in_range(tokens)

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        points = self._points(tokens)
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


_SAME = 2.0**-44
"""Squared distance, as a share of two points' squares, at and below which they are the same.

Above what float64 loses; float32 points that differ by more than a unit in the last place are far
above.
"""


def farthest_together(points: list[Tensor], k: list[int]) -> list[Tensor]:
    """Return the picks of images of float32 points [n_i d], all in the same operations; for GPUs.

    Squared distances are |a|² + |b|² - 2ab in float64, which loses no digit that differences in
    float32 would keep. Memory O(bn²).
    """
    together, sizes = padded(points, torch.float32), [len(one) for one in points]
    outside = behind(sizes, together)
    # Padding is zero.
    means = together.sum(1, keepdim=True) / on_device(sizes, together)[:, None, None]
    from_mean = torch.linalg.vector_norm(together - means, dim=2)
    first = from_mean.masked_fill(outside, float("inf")).argmin(1)
    wide = together.double()
    products = torch.bmm(wide, wide.mT)
    energy = products.diagonal(dim1=1, dim2=2)
    energies = energy[:, :, None] + energy[:, None, :]
    squares = energies - 2 * products
    squares.masked_fill_(squares <= _SAME * energies, 0.0)
    return max_min_device(squares.float(), first, sizes, k)


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
