"""Shapes in the signatures of public functions.

Axes: n visual tokens, d channels, k kept, b batch, h heads, t sequence.
"""

from jaxtyping import Float, Int64
from torch import Tensor

VisualTokens = Float[Tensor, "n d"]
"""Visual tokens of one image: one row per token."""

KeptIndices = Int64[Tensor, " k"]
"""Positions of kept tokens, ascending unless a selector documents otherwise."""

PickOrder = Int64[Tensor, " k"]
"""Positions in the order in which a selector picked them."""
