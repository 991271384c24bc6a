"""DPP: greedy MAP of a determinantal point process on the cosine kernel (Kulesza & Taskar 2012)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from otprune.checks import check_choice
from otprune.greedy import greedy_logdet_batch
from otprune.greedy.padded_kernels import padded_units, together_at_once
from otprune.greedy.programs import go_together, in_parts
from otprune.kernels import FactoredKernel, any_entry, unit_rows, working_dtype
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class DPP(Selector):
    """Greedy maximiser of det S_C, S the cosines: the squared volume that kept unit vectors span.

    Source: Kulesza & Taskar, arXiv 1207.6083, sec. 2.4.5 (MAP); the greedy steps are those of Chen
    et al., arXiv 1709.05135. The plain DPP baseline of the OTPrune paper (its Fig. 3).

    Every token has the same first gain, so the first pick is token 0. Once the picks span all
    channels every further determinant is zero, and the lowest remaining positions follow. All-zero
    tokens count as spanned from the start.
    Cost O(nk(d + k)).

    Attributes:
        accumulate: "float32" or "float64".
    """

    accumulate: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("accumulate", self.accumulate, ("float32", "float64"))

    def _rank_images(
        self, tokens: list[Tensor], k: list[int], signals: list[Signals]
    ) -> list[Tensor]:
        dtype = working_dtype(self.accumulate)
        units: list[Tensor] = []
        if go_together(tokens, dtype):
            for part in in_parts(len(tokens), together_at_once(tokens, dtype)):
                several = zip(padded_units(tokens[part], dtype), tokens[part], strict=True)
                units += [one[: len(image)] for one, image in several]
        else:
            units = [unit_rows(image.to(dtype)) for image in tokens]
        kernels = [FactoredKernel(one, known_diagonal=any_entry(one)) for one in units]
        return [picks.order for picks in greedy_logdet_batch(kernels, k)]

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        return self._rank_images([tokens], [k], [signals])[0]
