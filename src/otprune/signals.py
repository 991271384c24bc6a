"""What a selector may ask for besides the tokens of an image."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from otprune.checks import check_count


@dataclass(frozen=True, slots=True)
class Signals:
    """Side information about one image; a model computes only what the selector's ``needs`` name.

    Attributes:
        grid: rows and columns of the token grid, in raster order; rows * columns = n.
        image_id: an integer that names the image (a document number, say), so that a random
            selector draws anew for each image and yet the same whatever the batch.
        cls_attention: attention of the CLS token to each visual token, per head.
        encoder_keys: attention keys of the vision tower for each visual token.
        text_embeddings: embeddings of the question's tokens.
    """

    grid: tuple[int, int] | None = None
    image_id: int | None = None
    cls_attention: Float[Tensor, "h n"] | None = None
    encoder_keys: Float[Tensor, "n c"] | None = None
    text_embeddings: Float[Tensor, "t d"] | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the tokens."""
        if self.grid is not None:
            if not isinstance(self.grid, tuple | list) or len(self.grid) != 2:
                raise ValueError(f"grid must be (rows, columns), got {self.grid!r}")
            for name, size in zip(("grid rows", "grid columns"), self.grid, strict=True):
                check_count(name, size, least=1)
        if self.image_id is not None:
            check_count("image_id", self.image_id)

    def check_size(self, n: int, name: str) -> None:
        """Raise ``ValueError`` unless every signal about tokens is about ``n`` of them."""
        if self.grid is not None:
            rows, columns = self.grid
            if rows * columns != n:
                raise ValueError(
                    f"signals.grid of {name} must have n = {n} cells, got {rows} x {columns}"
                )
        for signal, axis in (("cls_attention", 1), ("encoder_keys", 0)):
            value = getattr(self, signal)
            if value is not None and (value.ndim != 2 or value.shape[axis] != n):
                raise ValueError(
                    f"signals.{signal} of {name} must have n = {n} on axis {axis} of two, "
                    f"got shape {tuple(value.shape)}"
                )


NO_SIGNALS = Signals()
