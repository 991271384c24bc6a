"""Side information about an image that methods may need in addition to its tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from otprune.checks import check_count

TOKEN_AXIS = {
    "cls_attention": 1,
    "received_attention": 1,
    "encoder_keys": 0,
    "final_cls_attention": 0,
    "final_keys": 0,
    "features": 0,
    "clip_patches": 0,
    "tiles": 0,
    "padding": 0,
}
"""Signals that have a value for each token, and the axis of the tokens."""

ONE_AXIS = frozenset({"tiles", "padding", "final_cls_attention"})
"""Those of them that have one number for each token; the others have two axes."""

TEXT_SIGNALS = frozenset({"text_embeddings", "question", "embed_words", "clip_text"})
"""Signals about the question: a method that needs one ranks an image again for each question."""


def signal_shape(name: str, n: int, c: int) -> tuple[int, ...]:
    """Return the shape of a signal of ``TOKEN_AXIS``: n tokens, and c on its other axis if any."""
    if name in ONE_AXIS:
        return (n,)
    return (c, n) if TOKEN_AXIS[name] else (n, c)


@dataclass(frozen=True, slots=True)
class Signals:
    """Side information about one image; a model computes only what the method's ``needs`` name.

    Signals with a value for each token are 0 at newline tokens, which end a row of patches. Where
    a model merges patches into a token, they are means over the token's patches.

    Attributes:
        grid: rows and columns of the token grid, in raster order; rows * columns = n.
        image_id: an integer that identifies the image (such as a document number). A random
            selector draws by it, so that images differ and batches do not matter.
        tiles: number of the tile that a token comes from, -1 at newline tokens; None where the
            image is one tile.
        padding: which tokens show nothing but the padding around the image. A model gives it
            wherever it is known, whether a method needs it or not.
        cls_attention: attention of the CLS token to each visual token, per head, in the block of
            the vision encoder whose output the projector takes (the CLS token is in the softmax).
        received_attention: of a vision encoder without a CLS token, the attention that each visual
            token receives in that block, per head: mean over all patches of its tile as queries.
        encoder_keys: attention keys of that block for each visual token, heads concatenated; with
            their rotary angles where the encoder has any.
        final_cls_attention: attention of the CLS token to each visual token in the vision encoder's
            next block, all channels as one head, softmax over CLS and patches of a tile.
        final_keys: attention keys of that next block.
        features: the projector's input for each token.
        cls_features: the vision encoder's output for the CLS token of each tile.
        clip_patches: each token in the space that CLIP shares between images and texts.
        clip_text: the question in that space, one row for each 77-token segment.
        text_embeddings: embeddings of the question's tokens; inside the language model their hidden
            states.
        question: the question as text.
        embed_words: returns the language model's embeddings [m d] of words, each tokenised alone.
        encode_at: returns the tokens [r * c, d] of the whole image down-sampled to r x c patches.
    """

    grid: tuple[int, int] | None = None
    image_id: int | None = None
    tiles: Int64[Tensor, " n"] | None = None
    padding: Bool[Tensor, " n"] | None = None
    cls_attention: Float[Tensor, "h n"] | None = None
    received_attention: Float[Tensor, "h n"] | None = None
    encoder_keys: Float[Tensor, "n c"] | None = None
    final_cls_attention: Float[Tensor, " n"] | None = None
    final_keys: Float[Tensor, "n c"] | None = None
    features: Float[Tensor, "n c"] | None = None
    cls_features: Float[Tensor, "i c"] | None = None
    clip_patches: Float[Tensor, "n p"] | None = None
    clip_text: Float[Tensor, "s p"] | None = None
    text_embeddings: Float[Tensor, "t d"] | None = None
    question: str | None = None
    embed_words: Callable[[Sequence[str]], Tensor] | None = None
    encode_at: Callable[[int, int], Tensor] | None = None

    def __post_init__(self) -> None:
        """Check grid and image id, which need no tokens."""
        if self.grid is not None:
            if not isinstance(self.grid, tuple | list) or len(self.grid) != 2:
                raise ValueError(f"grid must be (rows, columns), got {self.grid!r}")
            for name, size in zip(("grid rows", "grid columns"), self.grid, strict=True):
                check_count(name, size, least=1)
        if self.image_id is not None:
            check_count("image_id", self.image_id)

    @property
    def names(self) -> frozenset[str]:
        """Names of the signals that are given."""
        return frozenset(one.name for one in fields(self) if getattr(self, one.name) is not None)

    def given(self, name: str) -> Tensor:
        """Return a signal that is a tensor.

        Raises:
            ValueError: it is not given.
        """
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"signals.{name} must be given, got None")
        return value

    def check_size(self, n: int, name: str) -> None:
        """Raise ``ValueError`` unless every signal about tokens has ``n`` of them."""
        if self.grid is not None:
            rows, columns = self.grid
            if rows * columns != n:
                raise ValueError(
                    f"signals.grid of {name} must have n = {n} tokens, got {rows} x {columns}"
                )
        for signal, axis in TOKEN_AXIS.items():
            value = getattr(self, signal)
            axes = 1 if signal in ONE_AXIS else 2
            if value is not None and (value.ndim != axes or value.shape[axis] != n):
                raise ValueError(
                    f"signals.{signal} of {name} must have n = {n} on axis {axis} of "
                    f"{('one', 'two')[axes - 1]}, got shape {tuple(value.shape)}"
                )

    def take(self, among: Int64[Tensor, " m"]) -> "Signals":
        """Return the signals about some of the tokens, without a grid."""
        changes = {
            name: value.index_select(axis, among.to(value.device))
            for name, axis in TOKEN_AXIS.items()
            if (value := getattr(self, name)) is not None
        }
        return replace(self, grid=None, **changes)

    def to(self, device: torch.device) -> "Signals":
        """Return the signals on a device."""
        return replace(self, **{name: value.to(device) for name, value in self._tensors()})

    def contiguous(self) -> "Signals":
        """Return the same signals, each in one piece of memory, row by row."""
        scattered = [(name, one) for name, one in self._tensors() if not one.is_contiguous()]
        if not scattered:
            return self
        return replace(self, **{name: value.contiguous() for name, value in scattered})

    def _tensors(self) -> list[tuple[str, Tensor]]:
        found = [(one.name, getattr(self, one.name)) for one in fields(self)]
        return [(name, value) for name, value in found if isinstance(value, Tensor)]


NO_SIGNALS = Signals()
