"""The visual tokens of one image as they enter the language model."""

from dataclasses import dataclass, fields

from jaxtyping import Bool, Float
from torch import Tensor

from otprune.signals import NO_SIGNALS, Signals


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """Visual tokens of one image as they enter the language model, and what is known about them.

    Attributes:
        tokens: after projector and merge, [n d].
        newline: which of them are ``image_newline`` tokens, on the CPU; None if there are none.
        signals: what methods were told to ask for; about the question nothing.
    """

    tokens: Float[Tensor, "n d"]
    newline: Bool[Tensor, " n"] | None = None
    signals: Signals = NO_SIGNALS

    def __len__(self) -> int:
        """Number of visual tokens."""
        return len(self.tokens)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns if the tokens are one raster."""
        return self.signals.grid

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens and of what is known about them."""
        known = (getattr(self.signals, one.name) for one in fields(self.signals))
        parts = [part for part in known if isinstance(part, Tensor)]
        return self.tokens.nbytes + sum(part.nbytes for part in parts)
