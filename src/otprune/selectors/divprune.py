"""DivPrune: keep the tokens farthest from each other in cosine distance (arXiv 2503.02175)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.adaptive import AdaptiveSelector, Gains
from otprune.checks import check_choice
from otprune.compiled import loops_for
from otprune.greedy.max_min import max_min_in_rounds
from otprune.greedy.max_min_device import max_min_device, max_min_loop
from otprune.greedy.padded_kernels import padded_units, together_at_once
from otprune.greedy.programs import behind, go_together, in_parts
from otprune.kernels import symmetric_product, unit_rows, working_dtype
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens

_FULL_UP_TO = 4096
"""Tokens up to which all distances are held at once; beyond, they are computed row by row."""

_ROWS = 512
"""Rows of distances held at once among more tokens."""

_LEADERS = 4
"""Tokens whose isolation is computed in full each time."""


@dataclass(frozen=True, slots=True)
class DivPrune(AdaptiveSelector):
    """Greedy max-min selection under the distance 1 - cosine.

    Source: arXiv 2503.02175 (CVPR 2025), sec. 3 and Algorithm 1. The first pick is the token whose
    nearest other token is farthest; each next pick is the token whose nearest pick is farthest.
    The paper calls that an exact solution; it is the farthest-point heuristic.

    Differs from the released code: picked tokens are masked, so that no index is returned twice
    (in the code it can be, among exact duplicates); distances are float32, where the code uses the
    model's dtype (with half precision as few as 6 of 56 picks are those of float32). An all-zero
    token is at distance 1 from every other and tends to be picked first, in the code and here.

    Cost O(n²d) for the first pick, O(n) for each next; memory O(n²). Above 4096 tokens the first
    pick takes a part of that, each next O(nd), in rounds (`otprune.greedy.max_min`); memory O(nd).

    Adaptive counts (`AdaptiveSelector`): the gain of a pick is its distance to the nearest earlier
    pick, between 0 and 2; that of the first is 2. O(k²d) more.

    Attributes:
        accumulate: "float32", "float64" or "model" (the tokens' own dtype).
        adaptive: whether images have counts of their own, see `AdaptiveSelector`.
        threshold: with ``adaptive=True``, the least distance of a kept pick.
    """

    accumulate: Literal["float32", "float64", "model"] = "float32"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("accumulate", self.accumulate, ("float32", "float64", "model"))
        self._check_threshold()

    def _rank_images(
        self, tokens: list[Tensor], k: list[int], signals: list[Signals]
    ) -> list[Tensor]:
        dtype = self._dtype(tokens[0])
        if not go_together(tokens, dtype):
            return super(DivPrune, self)._rank_images(tokens, k, signals)
        found = []
        for part in in_parts(len(tokens), together_at_once(tokens, dtype)):
            found += divprune_together(tokens[part], k[part], dtype)
        return found

    def _rank_with_gains(
        self, tokens: list[Tensor], k: list[int], most: list[int], signals: list[Signals]
    ) -> list[Gains]:
        orders = self._rank_images(tokens, most, signals)
        return [
            Gains(order, distances_when_picked(unit_rows(image.to(self._dtype(image))), order))
            for image, order in zip(tokens, orders, strict=True)
        ]

    def _dtype(self, tokens: Tensor) -> torch.dtype:
        return tokens.dtype if self.accumulate == "model" else working_dtype(self.accumulate)

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        units = unit_rows(tokens.to(self._dtype(tokens)))
        if len(units) > _FULL_UP_TO:
            return max_min_in_rounds(units, most_isolated(units), k, nearest_pick)
        cosines = symmetric_product(units, units)
        loops = loops_for(cosines)
        if loops is not None:
            return loops.max_min_picks(cosines, k)
        distances = 1 - cosines
        return max_min_loop(distances, isolation(distances).argmax(0, keepdim=True), k)


def divprune_together(images: list[Tensor], k: list[int], dtype: torch.dtype) -> list[Tensor]:
    """Return the picks of images [n_i d], all in the same operations; for GPUs. Memory O(bn²)."""
    units = padded_units(images, dtype)
    distances = torch.bmm(units, units.mT).neg_().add_(1)
    sizes = [len(image) for image in images]
    outside = behind(sizes, units)
    distances.masked_fill_(outside[:, None], float("inf"))
    first = isolation(distances).masked_fill(outside, float("-inf")).argmax(1)
    return max_min_device(distances, first, sizes, k)


def isolation(distances: Float[Tensor, "*b n n"]) -> Float[Tensor, "*b n"]:
    """Return the distance of each token to the nearest other one.

    As in the released code: the second smallest of a row, the smallest being the token's own.
    """
    if distances.shape[-1] == 1:
        return distances[..., 0]
    return distances.topk(2, dim=-1, largest=False).values[..., 1]


def distances_when_picked(
    units: Float[Tensor, "n d"], order: Int64[Tensor, " k"]
) -> Float[Tensor, " k"]:
    """Return each pick's distance to the nearest earlier one; 2, the largest, for the first."""
    picked = units[order]
    found = []
    for start in range(0, len(picked), _ROWS):
        block = picked[start : start + _ROWS]
        distances = 1 - block @ picked[: start + len(block)].T
        places = torch.arange(start, start + len(block), device=units.device)
        later = places[:, None] <= torch.arange(distances.shape[1], device=units.device)
        found.append(distances.masked_fill(later, 2.0).amin(1))
    return torch.cat(found).clamp(max=2.0)


def nearest_pick(units: Float[Tensor, "n d"], picks: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
    """Return each unit vector's distance, 1 - cosine, to the nearest of some picks."""
    return torch.cat([1 - (block @ picks.T).amax(1) for block in units.split(_ROWS)])


def most_isolated(units: Float[Tensor, "n d"]) -> Int64[Tensor, " 1"]:
    """Return the token whose nearest other token is farthest, without all n² distances.

    A distance to any other token bounds a token's isolation from above. Tokens are compared with
    more and more others, and those are dropped that are less isolated for certain than one whose
    isolation is known; few are left after a small share of the others. Memory O(nd).
    """
    n = len(units)
    candidates = torch.arange(n, device=units.device)
    upper = units.new_full((n,), float("inf"))
    known, strides = float("-inf"), max(1, n // _ROWS)
    for start in range(strides):
        if len(candidates) <= _ROWS:
            break
        # Spread over the image: neighbours there are alike, and one of each kind is enough.
        others = torch.arange(start, n, strides, device=units.device)
        upper = torch.minimum(upper, _to_others(units, candidates, others))
        leaders = candidates[upper.topk(_LEADERS).indices]
        known = max(known, float(_to_others(units, leaders, None).max()))
        # Products of other shapes round otherwise.
        left = upper >= known - 1e-5
        candidates, upper = candidates[left], upper[left]
    isolation = _to_others(units, candidates, None)
    return candidates[isolation.argmax(0, keepdim=True)]


def _to_others(units: Tensor, index: Tensor, others: Tensor | None) -> Tensor:
    """Return the distance of each token of ``index`` to the nearest of ``others`` but itself."""
    right = units if others is None else units[others]
    numbers = torch.arange(len(units), device=units.device) if others is None else others
    found = []
    for part in index.split(_ROWS):
        distances = 1 - units[part] @ right.T
        distances.masked_fill_(part[:, None] == numbers, float("inf"))
        found.append(distances.amin(1))
    return torch.cat(found)
