"""Counts that differ between images: an image keeps its picks as long as each adds enough.

Greedy picks add less and less. A threshold on what a pick adds gives an image of much different
content more tokens, and a plain one fewer. The threshold is chosen beforehand, by `threshold_for`
on other images, so that the mean count is the budget.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from otprune.budget import resolve_budget
from otprune.checks import check_positive
from otprune.selector import Selector
from otprune.signals import NO_SIGNALS, Signals
from otprune.types import PickOrder

MOST = 4
"""No image keeps more than this many times the budget, which bounds its cost."""


class Gains(NamedTuple):
    """Tokens in the order of picking, and what each adds.

    Attributes:
        order: positions of the picked tokens.
        gains: what each pick adds, 0 or more, in the unit of its method; never rising.
    """

    order: PickOrder
    gains: Float[Tensor, " k"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveSelector(Selector):
    """A selector whose picks add less and less, so that a threshold can end them.

    With ``adaptive=True`` the budget k of `select` is the mean that the threshold was chosen for:
    an image keeps its leading picks whose gain is at least ``threshold``, but one at least and
    `MOST` times k at most. Budgets that keep all tokens still do. `rank` returns k picks as ever.

    Attributes:
        adaptive: whether images have counts of their own.
        threshold: the least gain of a kept pick, in the unit of the method's gains, above 0; with
            ``adaptive=True`` only.
    """

    adaptive: bool = False
    threshold: float = 0.0

    @property
    def fixed_count(self) -> bool:
        """Whether `select` keeps k tokens of every image."""
        return not self.adaptive

    def _check_threshold(self) -> None:
        """Check the two settings; for ``__post_init__`` of the methods."""
        if not isinstance(self.adaptive, bool):
            raise ValueError(f"adaptive must be true or false, got {self.adaptive!r}")
        if self.adaptive:
            check_positive("threshold", self.threshold)
        elif self.threshold != 0:
            raise ValueError(f"a threshold needs adaptive=True, got {self.threshold!r}")

    def gains(self, tokens: Tensor, k: SupportsIndex, signals: Signals | None = None) -> Gains:
        """Return the picks among which a budget of ``k`` chooses, and what each adds.

        Args:
            tokens: of one image, [n d].
            k: the budget; there are `MOST` times as many picks, or n.
            signals: side information.

        Raises:
            ValueError: as `rank`.
        """
        return self.gains_batch([tokens], [k], [signals or NO_SIGNALS])[0]

    def gains_batch(
        self,
        tokens: Sequence[Tensor],
        k: Sequence[SupportsIndex],
        signals: Sequence[Signals] | None = None,
    ) -> list[Gains]:
        """`gains` for several images [n_i d] of any sizes."""
        signals = self._check_images(tokens, signals)
        budgets = [resolve_budget(len(one), k=k_i) for one, k_i in zip(tokens, k, strict=True)]
        found: list[Gains] = []

        def ranked(
            tokens: list[Tensor], most: list[int], signals: list[Signals]
        ) -> list[PickOrder]:
            found.extend(self._rank_with_gains(tokens, budgets, most, signals))
            return [one.order for one in found]

        most = [min(len(one), MOST * budget) for one, budget in zip(tokens, budgets, strict=True)]
        orders = self._checked(ranked, list(tokens), most, signals)
        # Rounding of two ways to compute a gain must not make it rise.
        gains = [one.gains.cummin(0).values.clone() for one in found]
        return [Gains(order, gain) for order, gain in zip(orders, gains, strict=True)]

    def _picks(self, tokens: list[Tensor], k: list[int], signals: list[Signals]) -> list[PickOrder]:
        if not self.adaptive or not tokens:
            return super(AdaptiveSelector, self)._picks(tokens, k, signals)
        found = self.gains_batch(tokens, k, signals)
        # One reading for all images of a device.
        counts = torch.stack([(one.gains >= self.threshold).sum().cpu() for one in found]).tolist()
        return [one.order[: max(1, count)] for one, count in zip(found, counts, strict=True)]

    @abstractmethod
    def _rank_with_gains(
        self, tokens: list[Tensor], k: list[int], most: list[int], signals: list[Signals]
    ) -> list[Gains]:
        """Return ``most`` picks of checked images under the budgets ``k``, with their gains."""


def threshold_for(gains: Sequence[Tensor], mean: float) -> float:
    """Return the threshold under which images keep so many tokens on average.

    Of all thresholds that the gains distinguish, the one whose mean count is nearest to ``mean``;
    of two as near, the one that keeps fewer. It lies midway between two gains, so that rounding of
    either changes no count.

    Args:
        gains: what `AdaptiveSelector.gains` returns for each image.
        mean: wanted mean count, between 1 and the mean number of gains.

    Raises:
        ValueError: no images, or a mean out of its range.
    """
    if not gains:
        raise ValueError("gains must be those of at least one image")
    # The first pick is kept whatever it adds.
    later = torch.cat([one[1:].double().cpu() for one in gains]).sort(descending=True).values
    if not 1 <= mean <= 1 + len(later) / len(gains):
        most = 1 + len(later) / len(gains)
        raise ValueError(f"mean must be in 1..{most:g}, got {mean!r}")
    if not len(later):
        return 1.0
    # With a threshold below the m highest of these gains, and above all others, m are kept.
    wanted = (mean - 1) * len(gains)
    ends = torch.cat([later.diff() != 0, torch.tensor([True])]).nonzero()[:, 0] + 1
    counts = torch.cat([torch.zeros(1, dtype=torch.long), ends])
    m = int(counts[(counts - wanted).abs().argmin()])
    if m == 0:
        return float(later[0]) + 1.0
    if m == len(later):
        return float(later[-1]) / 2
    return float(later[m - 1 : m + 1].mean())
