"""What decides between tokens under CDPruner's rule."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

SPENT = 64 * torch.finfo(torch.float32).eps
"""Conditional variance, of 1 at first, at and below which a token is spanned by the picks."""


class Gains(NamedTuple):
    """What decides between tokens: of images [b n], or of one [n]; float32.

    Attributes:
        variance: conditional variances under S before the first pick.
        weight: factors of the variances, r².
        spent: the gains of tokens that the picks span; below all others, -inf for none at all.
    """

    variance: Float[Tensor, "*b n"]
    weight: Float[Tensor, "*b n"]
    spent: Float[Tensor, "*b n"]
