"""The visual tokens of one image as they enter the language model, and the images' ids."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields

from jaxtyping import Bool, Float
from torch import Tensor

from otprune.signals import NO_SIGNALS, Signals


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """Visual tokens of one image as they enter the language model, and the signals about them.

    Attributes:
        tokens: after projector and merging of tiles, [n d].
        newline: which of them are ``image_newline`` tokens, on the CPU; None if there are none.
        signals: those that were requested when the image was encoded; none about a question.
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
        """Bytes of the tokens and of their signals."""
        known = (getattr(self.signals, one.name) for one in fields(self.signals))
        parts = [part for part in known if isinstance(part, Tensor)]
        return self.tokens.nbytes + sum(part.nbytes for part in parts)


def check_image_ids(image_ids: Sequence[int | None] | None, images: int) -> list[int | None]:
    """Return one id for each image, as Python's integers; None for an image without one.

    Raises:
        ValueError: not one id for each of ``images`` images.
    """
    ids = [None] * images if image_ids is None else list(image_ids)
    if len(ids) != images:
        raise ValueError(
            f"image_ids must have one entry for each of {images} images, got {len(ids)}"
        )
    return [None if one is None else operator.index(one) for one in ids]
