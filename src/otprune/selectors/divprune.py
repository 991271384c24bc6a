"""DivPrune: keep the tokens farthest from each other in cosine distance (arXiv 2503.02175)."""

from dataclasses import dataclass
from typing import Literal

import torch

from otprune.checks import check_choice
from otprune.compiled import loops_for
from otprune.kernels import symmetric_product, unit_rows, working_dtype
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens

_FULL_UP_TO = 4096
"""Tokens up to which all distances are held at once; beyond, they are computed row by row."""

_ROWS = 512
"""Rows of distances held at once in the search for nearest neighbours among more tokens."""


@dataclass(frozen=True, slots=True)
class DivPrune(Selector):
    """Greedy max-min selection under the distance 1 - cosine.

    Source: arXiv 2503.02175 (CVPR 2025), sec. 3 and Algorithm 1. The first pick is the token whose
    nearest other token is farthest; each next pick is the token whose nearest pick is farthest.
    The paper calls that an exact solution; it is the farthest-point heuristic.

    Differs from the released code: picked tokens are masked, so that no index is returned twice
    (in the code it can be, among exact duplicates); distances are float32, where the code uses the
    model's dtype (with half precision as few as 6 of 56 picks are those of float32). An all-zero
    token is at distance 1 from every other and tends to be picked first, in the code and here.

    Cost O(n²d) for the first pick, O(n) for each next; memory O(n²). Above 4096 tokens O(nd) a
    pick and memory O(nd).

    Attributes:
        accumulate: "float32", "float64" or "model" (the tokens' own dtype).
    """

    accumulate: Literal["float32", "float64", "model"] = "float32"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("accumulate", self.accumulate, ("float32", "float64", "model"))

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        dtype = tokens.dtype if self.accumulate == "model" else working_dtype(self.accumulate)
        units = unit_rows(tokens.to(dtype))
        cosines = symmetric_product(units, units) if len(units) <= _FULL_UP_TO else None
        loops = None if cosines is None else loops_for(cosines)
        if cosines is not None and loops is not None:
            return loops.max_min_picks(cosines, k)
        distances = None if cosines is None else 1 - cosines
        order = torch.empty(k, dtype=torch.long, device=tokens.device)
        order[:1] = _isolation(units, distances).argmax(0, keepdim=True)
        nearest = torch.full_like(units[:, 0], float("inf"))
        for t in range(1, k):
            last = order[t - 1 : t]
            row = 1 - units @ units[last][0] if distances is None else distances[last][0]
            nearest = torch.minimum(nearest, row).index_fill_(0, last, float("-inf"))
            order[t : t + 1] = nearest.argmax(0, keepdim=True)
        return order


def _isolation(units: torch.Tensor, distances: torch.Tensor | None) -> torch.Tensor:
    """Return each token's distance to its nearest other token, [n].

    As in the released code that is the second smallest distance of its row, the smallest being the
    token's own.
    """
    if len(units) == 1:
        return units.new_zeros(1)
    if distances is not None:
        return _second_smallest(distances)
    return torch.cat([_second_smallest(1 - block @ units.T) for block in units.split(_ROWS)])


def _second_smallest(rows: torch.Tensor) -> torch.Tensor:
    return rows.topk(2, dim=1, largest=False).values[:, 1]
