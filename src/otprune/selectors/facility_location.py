"""Facility location: every token has a kept token that is similar to it."""

from dataclasses import dataclass
from typing import Literal

import torch

from otprune.checks import check_choice
from otprune.kernels import symmetric_product, unit_rows, working_dtype
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class FacilityLocation(Selector):
    """Greedy maximiser of the sum over tokens of the similarity to the most similar kept token.

    Source: Nemhauser, Wolsey & Fisher 1978 (greedy, 1 - 1/e); similarity (1 + cosine) / 2 >= 0, so
    the objective is monotone and submodular. It is the greedy form of k-medoids: 1 - cosine is half
    the squared distance of unit-norm tokens, so the objective rises exactly as the transport cost
    with free masses falls (`otprune.wasserstein.coverage`).

    A pick changes the terms of those tokens only that it is most similar to, so gains are updated
    by their rows: O(n²k) in the worst case, O(n² log k) if pick t is the most similar of n/t
    tokens. Which rows change is read back to the host at each pick. Memory O(n²). Nested.

    Attributes:
        accumulate: "float32" or "float64" for similarities; gains are summed in float64.
    """

    accumulate: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("accumulate", self.accumulate, ("float32", "float64"))

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        units = unit_rows(tokens.to(working_dtype(self.accumulate)))
        return facility_location_picks(symmetric_product(units, units).add_(1).mul_(0.5), k)


def facility_location_picks(similarity: torch.Tensor, k: int) -> torch.Tensor:
    """Return k greedy picks [k] for a similarity matrix [n n] with entries >= 0."""
    n = len(similarity)
    best = similarity.new_zeros(n)
    gain = similarity.clamp(min=0).sum(0, dtype=torch.float64)
    order = torch.empty(k, dtype=torch.long, device=similarity.device)
    for t in range(k):
        j = gain.argmax()
        order[t] = j
        changed = (similarity[j] > best).nonzero()[:, 0]
        rows, old = similarity[changed], best[changed]
        new = rows[:, j]
        before = (rows - old[:, None]).clamp_(min=0).sum(0, dtype=torch.float64)
        after = (rows - new[:, None]).clamp_(min=0).sum(0, dtype=torch.float64)
        gain += after - before
        best[changed] = new
        gain[j] = float("-inf")
    return order
