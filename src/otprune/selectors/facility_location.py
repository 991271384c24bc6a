"""Facility location: every token has a kept token that is similar to it."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from otprune.checks import check_choice
from otprune.greedy.coverage import coverage_loop, coverage_picks
from otprune.greedy.covers import Cover
from otprune.greedy.padded_kernels import padded_units, together_at_once
from otprune.greedy.programs import go_together, in_parts
from otprune.kernels import symmetric_product, unit_rows, working_dtype
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens

FULL_UP_TO = 4096
"""Tokens up to which all similarities are held at once."""

_ROWS = 256
"""Rows of similarities held at once among more tokens."""


@dataclass(frozen=True, slots=True)
class FacilityLocation(Selector):
    """Greedy maximiser of the sum over tokens of the similarity to the most similar kept token.

    Source: Nemhauser, Wolsey & Fisher 1978 (greedy, 1 - 1/e); similarity (1 + cosine) / 2 >= 0, so
    the objective is monotone and submodular. It is the greedy form of k-medoids: 1 - cosine is half
    the squared distance of unit-norm tokens, so the objective rises exactly as the transport cost
    with free masses falls (`otprune.wasserstein.coverage`).

    A pick changes the terms of those tokens only that it is most similar to, so gains are updated
    by their rows: O(n²k) in the worst case, O(n² log k) if pick t is the most similar of n/t
    tokens. Which rows change is read back to the host at each pick, on a GPU only where its program
    does not run (`otprune.greedy.coverage`). Memory O(n²). Above 4096 tokens
    rows of similarities are computed when they change: O(n²d) for the second pick, d times the rest
    of the above for all further ones; memory O(nd). Nested.

    Attributes:
        accumulate: "float32" or "float64" for similarities; gains are summed in float64.
    """

    accumulate: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("accumulate", self.accumulate, ("float32", "float64"))

    def _rank_images(
        self, tokens: list[Tensor], k: list[int], signals: list[Signals]
    ) -> list[Tensor]:
        dtype = working_dtype(self.accumulate)
        if not go_together(tokens, dtype):
            return super(FacilityLocation, self)._rank_images(tokens, k, signals)
        found = []
        for part in in_parts(len(tokens), together_at_once(tokens, dtype)):
            rows = similarities_together(tokens[part], dtype)
            found += coverage_picks([Cover(*one) for one in zip(rows, k[part], strict=True)])
        return found

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        units = unit_rows(tokens.to(working_dtype(self.accumulate)))
        if len(units) > FULL_UP_TO:
            return picks_in_blocks(units, k)
        return coverage_loop(Cover(symmetric_product(units, units).add_(1).mul_(0.5), k))


def similarities_together(images: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return the similarities [n_i n_i] of images [n_i d], all in the same operations; for GPUs."""
    units = padded_units(images, dtype)
    similarity = torch.bmm(units, units.mT).add_(1).mul_(0.5)
    return [one[: len(image), : len(image)] for one, image in zip(similarity, images, strict=True)]


def picks_in_blocks(units: torch.Tensor, k: int) -> torch.Tensor:
    """Return k greedy picks [k] for unit-norm tokens [n d]; `coverage_loop` in blocks.

    Rows of similarities are computed when they change, 256 at once. Memory O(nd).
    """
    # Before the first pick nothing is covered: the sum of (1 + cosine) / 2, all at least 0.
    total = units.sum(0, dtype=torch.float64)
    first = torch.cat([block.double() @ total for block in units.split(_ROWS)]).argmax()
    order = torch.empty(k, dtype=torch.long, device=units.device)
    order[0] = first
    best = _similarities(units, first[None])[0]
    gain = torch.zeros_like(total[:1]).repeat(len(units))
    for part in torch.arange(len(units), device=units.device).split(_ROWS):
        excess = _similarities(units, part).sub_(best[part, None]).clamp_(min=0)
        gain += excess.sum(0, dtype=torch.float64)
    gain[first] = float("-inf")
    for t in range(1, k):
        j = gain.argmax()
        order[t] = j
        row = _similarities(units, j[None])[0]
        for part in (row > best).nonzero()[:, 0].split(_ROWS):
            rows, old, new = _similarities(units, part), best[part, None], row[part, None]
            gain += (rows - new).clamp_(min=0).sum(0, dtype=torch.float64)
            gain -= rows.sub_(old).clamp_(min=0).sum(0, dtype=torch.float64)
        best = torch.maximum(best, row)
        gain[j] = float("-inf")
    return order


def _similarities(units: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return (units[index] @ units.T).add_(1).mul_(0.5)
